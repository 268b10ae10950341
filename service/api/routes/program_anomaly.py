"""Anomaly scores by an exported program, with p-values by the scores of normal inputs that its description has."""

from __future__ import annotations

import torch
from fastapi import Response

from models.p_values import conformal_p_values, conformal_threshold
from service.api.hot_path import ComputeCall
from service.api.image_urls import compute_images
from service.api.responses import alpha_warnings, anomaly_body, anomaly_object
from service.api.routes.program_inputs import program_rows, refuse_text_fields
from service.api.schemas.anomaly import AnomalyBody
from service.errors import InvalidRequest
from service.serving.image_model import ImageOutput
from service.serving.image_program import ServedImageProgram
from service.serving.program_model import ProgramRows, ServedProgram

# Fields that say what is normal, or that only other models have.
_OTHERS = ("reference", "detector", "maps", "contributions")


async def score_program(body: AnomalyBody, call: ComputeCall, served: ServedProgram) -> Response:
    """A score, a p-value and a verdict for each row of an exported program."""
    for name in _OTHERS:
        if name in body.model_fields_set:
            raise InvalidRequest.at(name, f"{served.metadata.name} is a program with a calibration: leave {name} out")
    rows = await call.cancel_on_disconnect(_rows(body, served, call))
    return call.respond(await served.run_in_pool(lambda: _write(rows, body, served)), served, rows)


async def _rows(body: AnomalyBody, served: ServedProgram, call: ComputeCall) -> ProgramRows | ImageOutput:
    if body.inputs is not None or body.rows is not None:
        return await program_rows(body, served, call)
    refuse_text_fields(body, served)
    if body.images is not None and isinstance(served, ServedImageProgram):
        call.require_inputs(len(body.images), "images")
        return await compute_images(body.images, served, call, "anomaly")
    fields = "inputs, or rows" + (", or images" if isinstance(served, ServedImageProgram) else "")
    raise InvalidRequest(f"{served.metadata.name} reads {served.reads}: send {fields}", param="model")


def _write(rows: ProgramRows | ImageOutput, body: AnomalyBody, served: ServedProgram) -> bytes:
    calibration = torch.tensor(served.description.calibration, dtype=torch.float64)
    scores = torch.from_numpy(rows.values[:, 0]).double()
    p_values = conformal_p_values(calibration, scores).tolist()
    scored = enumerate(zip(scores.tolist(), p_values, strict=True))
    count = len(calibration)
    return anomaly_body(
        body,
        [anomaly_object(index, score, p_value, body.alpha) for index, (score, p_value) in scored],
        conformal_threshold(calibration, body.alpha),
        {"count": count, "cached": True, "truncated": 0},
        alpha_warnings(count, body.alpha, "normal inputs", "calibrate on at least {} normal inputs"),
        [rows],
    )
