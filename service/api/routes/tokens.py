"""Tokens as the model sees them: our own route, and Cohere's form of it."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from models.text.tokenization import Explained
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.responses import list_body
from service.api.schemas.tokens import CohereText, CohereTokens, DetokenizeBody, ExplainAnswer, ExplainBody
from service.serving.text_model import ServedText

router = APIRouter()
_COHERE_META = {"api_version": {"version": "1"}}


@compute_route(
    router, "/v1/tokenize", ExplainAnswer | CohereTokens, "Show texts as the model sees them", tags=["Sonde"]
)
async def explain(body: ExplainBody, call: CallDep) -> Response:
    """Each text of `input` after preprocessing, with its tokens and ids, uncut; of Cohere's `text`, tokens and ids.

    `truncated` says whether the model would have to cut it.
    """
    served = await call.manager.resolve_texts(body.model)
    if body.input is None:
        return await _tokenize_for_cohere(body.text or "", served, call)
    call.require_inputs(len(body.input), "input")
    work = served.explain(
        body.input, call.caller, "input", prompt=served.prompt(body.prompt_name), special=body.add_special_tokens
    )
    explained = await call.cancel_on_disconnect(work)
    max_tokens = served.metadata.max_tokens

    def write() -> bytes:
        data = [_explanation(index, text, max_tokens) for index, text in enumerate(explained)]
        return list_body(body.model, data, max_tokens=max_tokens)

    return call.respond(await served.run_in_pool(write), served)


@compute_route(router, "/v1/detokenize", CohereText, "Turn token ids into text (Cohere)", tags=["Cohere"])
async def detokenize(body: DetokenizeBody, call: CallDep) -> Response:
    """The text of token ids of the model's own vocabulary."""
    served = await call.manager.resolve_texts(body.model)
    work = served.decode([body.tokens], call.caller, named=lambda index: "tokens")
    [text] = await call.cancel_on_disconnect(work)
    return call.respond(orjson.dumps({"text": text, "meta": _COHERE_META}), served)


async def _tokenize_for_cohere(text: str, served: ServedText, call: ComputeCall) -> Response:
    """The ids and tokens of a text, without prompt and special tokens, so that detokenizing gives the text back."""
    work = served.explain([text], call.caller, "text", prompt="", special=False)
    [seen] = await call.cancel_on_disconnect(work)
    content = {"tokens": seen.ids, "token_strings": seen.tokens, "meta": _COHERE_META}
    return call.respond(await served.run_in_pool(lambda: orjson.dumps(content)), served)


def _explanation(index: int, seen: Explained, max_tokens: int) -> dict[str, object]:
    return {
        "object": "tokens",
        "index": index,
        "text": seen.text,
        "tokens": seen.tokens,
        "ids": seen.ids,
        "special": seen.special,
        "truncated": len(seen.ids) > max_tokens,
    }
