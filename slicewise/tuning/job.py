"""What one search works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewise.config import Config, load_config
from slicewise.config.load import merge, parse_override, read_yaml
from slicewise.config.tune import SEARCHED, TuneConfig, nested
from slicewise.errors import StoreError
from slicewise.files import sha256_file, sha256_json
from slicewise.slices.split_file import FILE as SPLIT
from slicewise.slices.store_index import INDEX

# What a call may change without its trials becoming those of another search.
FREE = {"trials", "timeout_minutes", "keep"}


@dataclass(frozen=True)
class TuneJob:
    """What one search works on.

    Attributes:
        tune: The space, and how it is searched.
        mode: The mode that every trial starts from.
        file: A configuration file above it, or None.
        overrides: ``a.b=value`` words above both.
        store: The slice store's folder.
        split: The folder of ``split.json``; its test side is not read.
    """

    tune: TuneConfig
    mode: str
    file: Path | None
    overrides: tuple[str, ...]
    store: Path
    split: Path

    def base(self) -> Config:
        """The configuration that the trials change.

        Raises:
            ConfigError: A layer of it is wrong.
        """
        return load_config(self.mode, self.file, self.overrides)

    def layers(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The content of a configuration file that, with the same mode, gives what a trial was trained with.

        Raises:
            ConfigError: A layer cannot be read.
        """
        merged = {} if self.file is None else read_yaml(self.file)
        for word in self.overrides:
            merged = merge(merged, parse_override(word))
        return merge(merged, nested(params))

    def identity(self, base: Config) -> dict[str, str]:
        """Digests of all that must stay the same from call to call for the trials to be comparable.

        Raises:
            StoreError: There is no store or no split.
        """
        tune = self.tune.model_dump(mode="json", exclude=FREE)
        digests = {f"the search's {key!r}": sha256_json(value) for key, value in tune.items()}
        for name in (*SEARCHED, "seed"):
            digests[f"{name!r}"] = sha256_json(base.model_dump(mode="json")[name])
        for name, path, verb in (("store", self.store / INDEX, "preprocess"), ("split", self.split / SPLIT, "split")):
            try:
                digests[f"the {name}"] = sha256_file(path)
            except OSError as error:
                raise StoreError(f"cannot read {path}: {error.strerror}", f"run 'slicewise {verb}' first") from error
        return digests
