import pytest
import torch
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, DiffusionGemmaTextConfig, DynamicCache

from dgasr.diffusion.denoise import Decoder
from dgasr.diffusion.vocabulary import VocabularyHead

PROMPT_TOKENS = 7
VOCAB_SIZE = 64


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _build_backbone(experts_implementation: str) -> DiffusionGemmaForBlockDiffusion:
    text_config = DiffusionGemmaTextConfig(
        vocab_size=VOCAB_SIZE, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, global_head_dim=16, num_global_key_value_heads=2, num_experts=4,
        top_k_experts=2, moe_intermediate_size=32, sliding_window=64,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )  # fmt: skip
    vision_config = {
        "model_type": "gemma4_vision", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "position_embedding_size": 8,
    }  # fmt: skip
    config = DiffusionGemmaConfig(text_config=text_config, vision_config=vision_config, canvas_length=16)
    torch.manual_seed(1)
    model = DiffusionGemmaForBlockDiffusion(config).eval().requires_grad_(False)
    model.set_experts_implementation(experts_implementation)
    # As initialised, every token is almost equally likely. Larger matrices give a spread of entropies, larger
    # embeddings let some canvases settle.
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.mul_(20.0 if "embed_tokens" in name else 4.0)
    return model


@pytest.fixture(scope="session")
def build_backbone():
    return _build_backbone


@pytest.fixture(scope="session")
def backbone():
    return _build_backbone("eager")


class TextDecoder(Decoder):
    """A `Decoder` over transformers' backbone; payloads are prompts of PROMPT_TOKENS ids. Notes what it is asked."""

    def __init__(self, backbone, num_rows):
        self.backbone = backbone
        self.num_rows = num_rows
        self.cache = None
        self.admitted = []
        self.canvases = []

    @property
    def head(self):
        decoder = self.backbone.model.decoder
        return VocabularyHead(
            weight=self.backbone.lm_head.weight,
            softcap=self.backbone.final_logit_softcapping,
            embed_scale=decoder.embed_tokens.scalar_embed_scale,
        )

    def admit(self, rows, payloads):
        self.admitted.append(list(rows))
        for row, prompt in zip(rows, payloads, strict=True):
            cache = self.prefill(prompt)
            if self.cache is None:
                self.cache = self.prefill(prompt.expand(self.num_rows, -1))
            for own, new in zip(self.cache.layers, cache.layers, strict=True):
                own.keys[row], own.values[row] = new.keys[0], new.values[0]

    def prefill(self, prompts):
        cache = DynamicCache(config=self.backbone.config.text_config)
        return self.backbone.model.encoder(
            input_ids=prompts.view(-1, PROMPT_TOKENS), past_key_values=cache
        ).past_key_values

    def __call__(self, ids, soft_embeddings):
        self.canvases.append(ids.clone())

        def replace(module, args):
            return args[0], soft_embeddings

        decoder = self.backbone.model.decoder
        handle = decoder.self_conditioning.register_forward_pre_hook(replace)
        try:
            return decoder(decoder_input_ids=ids, past_key_values=self.cache).last_hidden_state
        finally:
            handle.remove()


@pytest.fixture(scope="session")
def text_decoder():
    return TextDecoder


@pytest.fixture(scope="session")
def prompts():
    return torch.randint(0, VOCAB_SIZE, (40, PROMPT_TOKENS), generator=torch.Generator().manual_seed(3))
