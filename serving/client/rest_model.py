"""As ``remote_model``, over SliceWise's own REST routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serving.client import results
from serving.client.options import SliceOptions
from serving.client.remote_model import Outcome, ServedModel, in_groups
from slicewise.errors import InputError, UsageError
from slicewise.inference.predictor import Prediction, PredictOptions, SliceInput

Entry = results.ClassifiedImage | results.SegmentedImage | results.Explanation


class RestModel(ServedModel):
    """A server's model over REST; heat maps come in steps of 1/255."""

    def require_tasks(self, tasks: Sequence[str]) -> None:
        """See ``PredictModel``: the route of uncertainty gives no figures of the head as V2 does."""
        if "uncertainty" in tasks:
            raise UsageError("tasks: uncertainty does not come over rest", "use --protocol v2-http or v2-grpc")

    def _predict(
        self, items: Sequence[SliceInput], options: PredictOptions, *, probability: bool
    ) -> Sequence[Outcome]:
        """Slices of one spacing and the same modalities go together, whatever their sizes."""

        def ask(group: Sequence[SliceInput]) -> Sequence[Outcome]:
            outcomes = self._ask(group, options, probability)
            return self._explained(group, outcomes, options) if "explain" in options.tasks else outcomes

        return in_groups(items, ask, lambda item: (item.modalities, item.pixel_mm))

    def _ask(self, items: Sequence[SliceInput], options: PredictOptions, probability: bool) -> list[Outcome]:
        images, asked = [item.image for item in items], self._asked(items[0], options)
        if "segment" in options.tasks:
            entries = self._client.segment_batch(images, probability_map=probability, **asked)
            return [self._outcome(entry) for entry in entries]
        return [self._outcome(entry) for entry in self._client.classify_batch(images, **asked)]

    def _explained(
        self, items: Sequence[SliceInput], outcomes: Sequence[Outcome], options: PredictOptions
    ) -> list[Outcome]:
        explained = []
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Prediction):
                asked = self._asked(item, options)
                answer = self._client.explain(item.image, explain_method=options.explain_method, **asked)
                outcome = replace(outcome, gradcam=answer.evidence)
            explained.append(outcome)
        return explained

    def _asked(self, item: SliceInput, options: PredictOptions) -> SliceOptions:
        asked = SliceOptions(modalities=item.modalities, pixel_mm=item.pixel_mm, version=self.facts.version)
        if options.threshold is not None:
            asked["threshold"] = options.threshold
        return asked

    def _outcome(self, entry: results.ClassifiedImage | results.SegmentedImage | results.FailedImage) -> Outcome:
        if isinstance(entry, results.FailedImage):
            error = entry.exception
            if isinstance(error, InputError):
                return error
            raise error
        masked = entry if isinstance(entry, results.SegmentedImage) else None
        return Prediction(
            tumor_probability=entry.tumor_probability,
            tumor_label=entry.tumor_label,
            threshold=entry.threshold,
            mask=masked.mask if masked else None,
            region_probability=masked.probability if masked else None,
            decoded=masked is not None,
            trained_regions=self.settings.trained_regions,
            decision=entry.decision,
            ood_score=entry.ood_score,
            ood_flag=entry.ood_flag,
            ood_parts=entry.ood_parts,
        )
