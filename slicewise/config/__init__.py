"""The configuration: frozen, validated once, merged from YAML layers.

Layers, later ones winning: ``configs/base.yaml``, ``configs/modes/<mode>.yaml``, ``--config FILE``, ``--set a.b=c``.
Each section goes to the stages that need it and to no other, so that a changed gate threshold, say, does not
make preprocessing run again.
"""

from slicewise.config.augment import AUGMENT_PRESETS, AugmentConfig
from slicewise.config.base import (
    MODALITIES,
    REGIONS,
    STAGES,
    Count,
    Modality,
    Positive,
    Preset,
    Section,
    Share,
    StageName,
)
from slicewise.config.download import DownloadConfig, PhantomConfig
from slicewise.config.gate import GateConfig
from slicewise.config.judge import CalibrateConfig, EvaluateConfig
from slicewise.config.load import Config, config_folder, load_config, modes, validate
from slicewise.config.loss import LossConfig
from slicewise.config.model import Architecture, ModelConfig
from slicewise.config.predictor import PredictorSettings
from slicewise.config.preprocess import PreprocessConfig, SliceConfig
from slicewise.config.serve import ServeConfig
from slicewise.config.split import SplitConfig
from slicewise.config.track import TrackConfig
from slicewise.config.train import SamplingConfig, StageConfig, TrainConfig

__all__ = [
    "AUGMENT_PRESETS",
    "MODALITIES",
    "REGIONS",
    "STAGES",
    "Architecture",
    "AugmentConfig",
    "CalibrateConfig",
    "Config",
    "Count",
    "DownloadConfig",
    "EvaluateConfig",
    "GateConfig",
    "LossConfig",
    "Modality",
    "ModelConfig",
    "PhantomConfig",
    "Positive",
    "PredictorSettings",
    "PreprocessConfig",
    "Preset",
    "SamplingConfig",
    "Section",
    "ServeConfig",
    "Share",
    "SliceConfig",
    "SplitConfig",
    "StageConfig",
    "StageName",
    "TrackConfig",
    "TrainConfig",
    "config_folder",
    "load_config",
    "modes",
    "validate",
]
