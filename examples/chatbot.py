"""A FAQ bot on the OpenAI client: search by embeddings, intent by labels, "I don't know" by anomaly score.

make serve                         # in one terminal
python examples/chatbot.py         # in another; needs `pip install openai`
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from openai import APIConnectionError, OpenAI

MODEL = "all-MiniLM-L6-v2"

# Each answer, and the questions that it answers.
FAQ: dict[str, list[str]] = {
    "Log in and press 'Freeze card'. A new card arrives in five working days.": [
        "I lost my card",
        "my card was stolen",
        "how do I block my card",
        "someone took my bank card",
        "I cannot find my card anywhere",
        "please freeze my card",
    ],
    "Refunds arrive within seven days on the account that you paid from.": [
        "when do I get my money back",
        "where is my refund",
        "how long does a refund take",
        "I returned the shoes and have not been paid back",
        "the shop said it sent my refund",
        "I want a refund",
    ],
    "Choose 'Forgotten password' on the login page; we send you a link.": [
        "I forgot my password",
        "how do I reset my password",
        "my password does not work any more",
        "I cannot log in",
        "change my password",
        "the login page refuses my password",
    ],
    "Our branches are open Monday to Friday from 9 to 17 o'clock.": [
        "when are you open",
        "what are your opening hours",
        "is the branch open on Saturday",
        "when does the branch close",
        "are you open today",
        "until when can I visit a branch",
    ],
}
INTENTS = {
    "question": ["how do I do this", "when does it arrive", "where can I see that"],
    "complaint": ["this is outrageous", "I am very unhappy with your service", "you people never answer"],
    "thanks": ["thank you", "great, that helped", "thanks a lot"],
}
SURE = 0.8


@dataclass(frozen=True)
class Reply:
    text: str
    intent: str
    strange: bool


class Bot:
    def __init__(self, base_url: str, api_key: str = "none") -> None:
        self._client = OpenAI(base_url=base_url, api_key=api_key)
        self._answers = [answer for answer, asked in FAQ.items() for _ in asked]
        self._asked = [text for asked in FAQ.values() for text in asked]
        self._known = self._embed(self._asked)

    def reply(self, text: str) -> Reply:
        intent = self._intent(text)
        if intent == "thanks":
            return Reply("You are welcome!", intent, strange=False)
        if self._is_strange(text):
            return Reply("I don't know. Let me fetch a colleague.", intent, strange=True)
        [vector] = self._embed([text])
        near = max(range(len(self._known)), key=lambda at: _dot(self._known[at], vector))
        sorry = "I am sorry to hear that. " if intent == "complaint" else ""
        return Reply(sorry + self._answers[near], intent, strange=False)

    def _embed(self, texts: list[str]) -> list[list[float]]:
        return [item.embedding for item in self._client.embeddings.create(model=MODEL, input=texts).data]

    def _intent(self, text: str) -> str:
        [item] = self._post("/classify", input=text, labels=INTENTS)["data"]
        return str(item["label"]) if item["labels"][0]["score"] >= SURE else "question"

    def _is_strange(self, text: str) -> bool:
        """Whether a text is more unusual than 95 in 100 known questions; the service caches the reference."""
        [item] = self._post("/anomaly/score", input=text, reference=self._asked, alpha=0.05)["data"]
        return bool(item["is_anomaly"])

    def _post(self, path: str, **body: object) -> Any:
        """Call a route of Sonde's own with the client's address, key, retries and timeouts."""
        return self._client.post(path, body={"model": MODEL, **body}, cast_to=object)


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def main() -> None:
    url = os.environ.get("SONDE_URL", "http://127.0.0.1:8000")
    try:
        bot = Bot(f"{url}/v1", os.environ.get("SONDE_API_KEY", "none"))
    except APIConnectionError:
        raise SystemExit(f"nothing answers at {url}: start 'make serve'") from None
    print("Ask me something; an empty line ends this.")
    for line in sys.stdin:
        if not line.strip():
            break
        reply = bot.reply(line.strip())
        print(f"{reply.text}   [{reply.intent}{', strange' if reply.strange else ''}]", flush=True)


if __name__ == "__main__":
    main()
