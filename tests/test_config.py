from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from slicewise.config import Config, SliceConfig, SplitConfig, load_config, modes, validate
from slicewise.errors import ConfigError


@pytest.mark.parametrize("mode", modes())
def test_every_mode_loads(mode: str) -> None:
    config = load_config(mode)
    assert config.mode == mode
    assert abs(sum(config.split.fractions) - 1) < 1e-6
    assert config.split.aliases["TCGA_HT_7473"] == ("Brats18_TCIA13_623_1",)


def test_there_are_modes() -> None:
    assert {"smoke", "quick", "baseline", "production"} <= set(modes())


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 4\ntrain: {batch_size: 5}\n")
    config = load_config("smoke", file, ["train.batch_size=6", "model.preset=medium"])
    assert (config.seed, config.train.batch_size, config.model.preset) == (4, 6, "medium")
    assert config.preprocess.train_slices == load_config("smoke").preprocess.train_slices


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("train.batch_sise=4", "did you mean 'batch_size'"),
        ("trian.batch_size=4", "did you mean 'train'"),
        ("train.joint.epoch=4", "did you mean 'epochs'"),
        ("train.batch_size=0", "train.batch_size"),
        ("train.batch_size=many", "train.batch_size"),
        ("preprocess.slice.size=100", "preprocess.slice.size"),
        ("preprocess.slice.modalities=[flair, flair]", "without repeats"),
        ("split.fractions=[0.5, 0.5, 0.5]", "sum to 1"),
        ("serve.model_name=Slice Wise", "serve.model_name"),
        ("seed", "has no '='"),
        ("=3", "has no '='"),
        ("seed=[1", "not a YAML value"),
    ],
)
def test_a_wrong_word_is_named(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("smoke", overrides=[word])
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_unknown_key_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="known keys here: .*max_ece.*min_dice_wt"):
        load_config("smoke", overrides=["gate.sharpness=1"])


def test_unknown_mode() -> None:
    with pytest.raises(ConfigError, match="unknown mode 'smoky', did you mean 'smoke'.*baseline"):
        load_config("smoky")


@pytest.mark.parametrize(
    ("content", "said"), [(b"a: [", "is not YAML"), (b"- 1\n", "holds a list"), (b"\xff\xfe\x00", "is not YAML")]
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load_config("smoke", file)
    assert "broken.yaml" in str(caught.value)


def test_a_missing_or_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config("smoke", tmp_path / "absent.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load_config("smoke", tmp_path / "empty.yaml") == load_config("smoke")


def test_frozen() -> None:
    config = load_config("smoke")
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 5  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.train.joint.epochs = 5  # type: ignore[misc]


def test_a_resolved_configuration_reads_back_the_same() -> None:
    """A run stores its resolved configuration: reading it again must change nothing."""
    config = load_config("baseline")
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert validate(Config, yaml.safe_load(text)) == config


def test_a_section_has_no_nulls() -> None:
    gate = load_config("smoke", overrides=["gate.min_roc_auc=null"]).section("gate")
    assert "min_roc_auc" not in gate
    assert None not in gate.values()


def test_the_unknown_modality_must_be_a_channel() -> None:
    with pytest.raises(ValidationError, match="not among modalities"):
        SliceConfig(modalities=("t1", "t2"))
    with pytest.raises(ValidationError, match="three positive shares"):
        SplitConfig(fractions=(1.0, 0.0, 0.0))
