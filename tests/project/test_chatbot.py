"""The example bot against a real service with the real model."""

from __future__ import annotations

import pytest

from examples.chatbot import Bot
from tests.support.server import Served

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture(scope="module")
def bot(server: Served) -> Bot:
    return Bot(f"{server.url}/v1")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("hey, someone stole my card!!", "Freeze card"),
        ("what time do you close", "9 to 17"),
        ("my login doesnt accept my pw", "Forgotten password"),
        ("I am so angry, my refund never came, terrible service", "sorry to hear that. Refunds arrive"),
        ("thanks so much", "You are welcome"),
        ("what is the tallest mountain in Peru?", "I don't know"),
        ("can you write me a poem about cheese", "I don't know"),
        ("where do you sell umbrellas", "I don't know"),
    ],
)
def test_the_bot_answers(bot: Bot, said: str, answer: str) -> None:
    assert answer in bot.reply(said).text
