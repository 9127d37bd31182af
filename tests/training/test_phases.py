import json
from dataclasses import asdict

import pytest

from dgasr.errors import ConfigError
from dgasr.training.canvas_noise import CanvasNoiseConfig
from dgasr.training.objective import LossWeights
from dgasr.training.phases import Phase, Plan, read_plan
from tools.tiny.fresh import PLAN

SHIPPED = [PLAN]
PHASE = {"steps": 3, "learning_rate": 1e-3}


def written(tmp_path, plan):
    path = tmp_path / "plan.json"
    path.write_text(plan if isinstance(plan, str) else json.dumps(plan))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_plan_can_be_read(path):
    plan = read_plan(path)
    assert plan.total_steps == sum(phase.steps for phase in plan.phases)
    assert any(phase.losses.diffusion for phase in plan.phases)


def test_a_plan_survives_its_json(tmp_path):
    plan = Plan(
        phases=(
            Phase(steps=2, learning_rate=1e-3, train=("encoder",), noise=CanvasNoiseConfig(own_steps=0.5, draws=2)),
            Phase(steps=5, learning_rate=1e-4, losses=LossWeights(frame=0.5), strength=(0.0, 0.5)),
        ),
        clip_norm=1.0,
    )
    assert read_plan(written(tmp_path, plan.to_json())) == plan


def test_what_a_plan_leaves_out_has_the_defaults(tmp_path):
    plan = read_plan(written(tmp_path, {"phases": [PHASE]}))
    assert plan == Plan(phases=(Phase(**PHASE),))


@pytest.mark.parametrize("place", ["plan", "phase", "losses", "noise", "batches", "augmentation"])
def test_a_field_that_does_not_exist_is_refused_everywhere(tmp_path, place):
    plan = json.loads(json.dumps(asdict(Plan(phases=(Phase(**PHASE),)))))
    phase = plan["phases"][0]
    {"plan": plan, "phase": phase, "augmentation": plan["augmentation"], **phase}[place]["learning_rte"] = 1
    with pytest.raises(ConfigError, match="learning_rte"):
        read_plan(written(tmp_path, plan))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"phases": [1]}', '{"phases": {"a": 1}}', '{"phases": 1}'])
def test_what_is_no_plan_is_refused_with_the_file(tmp_path, content):
    with pytest.raises(ConfigError, match=r"plan\.json: not a training plan"):
        read_plan(written(tmp_path, content))


def test_a_missing_plan_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json"):
        read_plan(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"learning_rate": 0},
        {"grad_accumulation": 0},
        {"dropout": 1},
        {"train": ["head"]},
        {"train": []},
        {"losses": {"ctc": -1}},
        {"noise": {"full_noise": 1.5}},
        {"noise": {"draws": 0}},
        {"batches": {"batch_size": 0}},
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, fields):
    with pytest.raises(ConfigError):
        read_plan(written(tmp_path, {"phases": [PHASE | fields]}))


def test_a_plan_needs_a_phase(tmp_path):
    with pytest.raises(ConfigError, match="at least one phase"):
        read_plan(written(tmp_path, {"phases": []}))


def test_a_shortened_plan_keeps_its_phases_and_a_share_of_their_steps(tmp_path):
    plan = read_plan(written(tmp_path, {"phases": [PHASE | {"steps": 1800}, PHASE | {"steps": 1}]}))
    assert [phase.steps for phase in plan.shortened(0.6).phases] == [1080, 1]
    assert plan.shortened(1.0) == plan


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_plan_cannot_be_shortened_to_nothing_or_more_than_itself(tmp_path, share):
    with pytest.raises(ConfigError, match="share"):
        read_plan(written(tmp_path, {"phases": [PHASE]})).shortened(share)


def test_the_learning_rate_rises_to_its_peak_in_a_line_and_falls_in_a_cosine():
    phase = Phase(steps=12, learning_rate=2.0, warmup_steps=4, final_share=0.5)
    rates = [phase.learning_rate_at(step) for step in range(13)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[8] == pytest.approx(1.5)
    assert rates[12] == pytest.approx(1.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
