"""Write ``panoptica_table.json``: what panoptica says of ``lesion_shapes``, with the official BraTS configuration.

panoptica (Kofler et al., arXiv:2312.02608) wants an older NumPy than this project, so it runs in an environment of
its own; `brats-evaluation`, the challenge's package, brings it and the configuration:

    python -m venv other && other/bin/pip install brats-evaluation
    other/bin/python tests/evaluation/panoptica_table.py
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from brats_evaluation import config_path
from lesion_shapes import lesion_cases
from panoptica import Metric, Panoptica_Evaluator

TABLE = Path(__file__).with_suffix(".json")
WANTED = ("tp", "fp", "fn", "rq", "sq_dsc", "sq_hd95", "global_bin_dsc", "global_bin_hd95")


def main() -> None:
    evaluator = Panoptica_Evaluator.load_from_config(str(config_path("gli")))
    table = {}
    for name, (predicted, reference) in lesion_cases().items():
        masks = [mask.astype(np.uint8) for mask in (predicted, reference)]
        found = evaluator.evaluate(*masks)["wt"].to_dict()
        row = {key: found.get(key) for key in WANTED}
        row["assd"] = float(Metric.ASSD(masks[1], masks[0])) if predicted.any() and reference.any() else None
        # JSON has neither infinity nor NaN: both stand for what is undefined.
        table[name] = {key: value if value is None or np.isfinite(value) else None for key, value in row.items()}
    libraries = {name: version(name) for name in ("panoptica", "BraTS_evaluation")}
    TABLE.write_text(json.dumps({"libraries": libraries, "table": table}, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{TABLE}\n")


if __name__ == "__main__":
    main()
