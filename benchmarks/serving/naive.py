"""The server that one would write in an afternoon: one eager float32 request at a time, JSON lists both ways.

python benchmarks/serving/naive.py BUNDLE PORT
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from slicewise.inference.predictor import Predictor
from slicewise.slices.transform import prepare_slice


class Picture(BaseModel):
    """One slice ``[channels][height][width]``."""

    image: list[list[list[float]]]


def application(bundle: Path) -> FastAPI:
    """One route over the bundle's network."""
    predictor, turn, app = Predictor.load(bundle, "cpu"), threading.Lock(), FastAPI()

    def segment(picture: Picture) -> dict[str, object]:
        config = predictor.meta.preprocessing
        prepared = prepare_slice(np.array(picture.image, dtype=np.float32), ("flair",), config)
        with turn, torch.inference_mode():
            features = predictor.network.encoder(predictor.to_input(prepared.image[np.newaxis]))
            tumour = predictor.network.head(features[-1]).sigmoid()
            regions = predictor.engine.regions(features).sigmoid()[0]
        return {"tumor_probability": tumour.tolist(), "regions": regions.tolist()}

    app.add_api_route("/segment", segment, methods=["POST"])
    return app


if __name__ == "__main__":
    uvicorn.run(application(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
