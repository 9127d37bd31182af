import pytest
import torch
from safetensors.torch import load_file, save_file

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.checkpoint import load_model, save_model
from dgasr.model.identity import PUNCTUATION_FILE, folder_digest
from dgasr.model.punctuation import MARKS, PunctuationNetwork, Punctuator
from tools.base.bundle import save_punctuation

TEXTS = [[[3], [4, 5]], [[6]], [[7, 8, 9], [3], [4], [5, 6]]]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PunctuationNetwork(24, 8, 6).eval().requires_grad_(False)


@pytest.fixture
def folder(random_model, tokenizer, tmp_path):
    save_model(random_model, tmp_path)
    tokenizer.save(tmp_path)
    return tmp_path


def sigmoid_cell(state, word, weights):
    """Gated recurrent unit of Cho et al. 2014, as torch has it, written out for one word and one direction."""
    reset, update, new = (word @ weights["weight_ih"].T + weights["bias_ih"]).chunk(3)
    own_reset, own_update, own_new = (state @ weights["weight_hh"].T + weights["bias_hh"]).chunk(3)
    update = torch.sigmoid(update + own_update)
    return update * state + (1 - update) * torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)


def slow(network, text):
    """Read one text word by word."""
    states = [network.pieces.weight[word].mean(dim=0) for word in text]
    named = dict(network.context.named_parameters())
    for layer in range(2):
        read = []
        for suffix, order in (("", 1), ("_reverse", -1)):
            weights = {
                f"{kind}_{gate}": named[f"{kind}_{gate}_l{layer}{suffix}"]
                for kind in ("weight", "bias")
                for gate in ("ih", "hh")
            }
            state, found = torch.zeros(6), []
            for word in states[::order]:
                state = sigmoid_cell(state, word, weights)
                found.append(state)
            read.append(found[::order])
        states = [torch.cat(pair) for pair in zip(*read, strict=True)]
    return torch.stack([network.marks(state) for state in states]), torch.stack(
        [network.capitals(state) for state in states]
    )


def test_texts_read_together_are_what_each_is_alone_and_word_by_word(network):
    together = network(TEXTS)
    alone = [torch.cat(outputs) for outputs in zip(*(network([text]) for text in TEXTS), strict=True)]
    one_by_one = [torch.cat(outputs) for outputs in zip(*(slow(network, text) for text in TEXTS), strict=True)]
    for found, own, expected in zip(together, alone, one_by_one, strict=True):
        torch.testing.assert_close(found, own)
        torch.testing.assert_close(found, expected)


def test_words_are_written_with_the_likeliest_mark_and_case(tokenizer):
    class Fixed(PunctuationNetwork):
        def forward(self, texts):
            ((*words,),) = texts
            assert words == [tokenizer.encode(word) for word in ("one", "two", "three")]
            return torch.eye(len(MARKS))[[0, 1, 3]], torch.eye(2)[[1, 0, 0]]

    punctuator = Punctuator(Fixed(24, 8, 6), tokenizer)
    assert punctuator.written(["one", "two", "three"]) == ["One", "two,", "three?"]
    assert punctuator.written([]) == []


def test_a_folder_may_have_it_in_either_precision_and_it_counts_for_the_digest(folder, network):
    assert load_model(folder).punctuator is None
    digests, (expected, _) = {folder_digest(folder)}, network(TEXTS)
    save_punctuation(network, folder)
    digests.add(folder_digest(folder))
    model = load_model(folder)
    narrow, _ = model.punctuator.network(TEXTS)
    assert 0 < (narrow - expected).abs().max() < 0.02
    model.punctuator.network = network
    save_model(model, folder)
    digests.add(folder_digest(folder))
    whole, _ = load_model(folder).punctuator.network(TEXTS)
    assert torch.equal(whole, expected)
    assert len(digests) == 3


def test_one_of_another_vocabulary_or_another_network_is_refused(folder, network):
    path = folder / PUNCTUATION_FILE
    save_punctuation(PunctuationNetwork(23, 8, 6), folder)
    with pytest.raises(IntegrityError, match=r"punctuation\.safetensors: knows 23 tokens"):
        load_model(folder)
    save_punctuation(network, folder)
    stored = load_file(path)
    del stored["capitals.bias"]
    save_file(stored, path)
    with pytest.raises(IntegrityError, match=r"capitals\.bias"):
        load_model(folder)
    path.write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="no readable weights"):
        load_model(folder)
