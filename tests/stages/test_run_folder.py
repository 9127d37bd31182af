from pathlib import Path

import pytest

from dgasr.errors import ObjectMissingError
from dgasr.recipe import Recipe
from dgasr.stages.beat import Beating, read_beat
from dgasr.stages.run_folder import RunFolder


def test_the_recipe_comes_back_and_nothing_is_left_in_the_end(tmp_path: Path, recipe: Recipe):
    folder = RunFolder(lake_uri=f"{tmp_path}/lake", run_id="r1")
    folder.write_recipe(recipe)
    with Beating(folder.beat_uri("decode", 3, 1)):
        assert read_beat(folder.beat_uri("decode", 3, 1)) is not None
    assert folder.read_recipe() == recipe
    folder.delete()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(ObjectMissingError):
        folder.read_recipe()
