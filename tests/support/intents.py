"""Six intents of a bank's chatbot, a few of them alike, as rows that people might have written."""

from __future__ import annotations

import itertools
import json
import random

_OPENINGS = ("", "hi, ", "please help: ", "hello there, ", "quick question, ")
_ENDINGS = ("", "?", " please", " thanks", ", can you check")
_CORES = {
    "arrival": (
        "where is the card that I ordered",
        "my new card has not come yet",
        "how long until my card is delivered",
        "still waiting for the card in the post",
        "when will the card reach me",
        "track the delivery of my card",
    ),
    "lost": (
        "I cannot find my card",
        "my card was stolen on the train",
        "someone took my wallet with the card",
        "I left my card in a taxi",
        "freeze my card, it is gone",
        "I think I dropped my bank card",
    ),
    "fee": (
        "why was I charged extra",
        "there is a fee that I do not know",
        "what is this small charge on my statement",
        "you took money for a withdrawal",
        "explain the extra cost of my transfer",
        "was there a fee for paying abroad",
    ),
    "rate": (
        "what exchange rate did you use",
        "the conversion to euros looks wrong",
        "how do you work out currency rates",
        "I got a bad rate for my dollars",
        "the rate changed since my purchase",
        "which rate applies on weekends",
    ),
    "refund": (
        "I want my money back",
        "the shop has not refunded me",
        "when does my refund arrive",
        "cancel this purchase and return the money",
        "I returned the shoes and was not paid back",
        "my refund does not show",
    ),
    "pin": (
        "I typed a wrong code three times",
        "unblock my pin",
        "how can I change the pin of my card",
        "the machine says my pin is blocked",
        "I forgot the code of my card",
        "set a new pin for me",
    ),
}
# What the labels are called says little, as in real projects; so names alone do not classify.
LABELS = {
    "arrival": "logistics",
    "lost": "security",
    "fee": "pricing",
    "rate": "treasury",
    "refund": "merchant",
    "pin": "access",
}
OUT_OF_SCOPE = (
    "what is the tallest mountain in Peru",
    "write me a poem about cheese",
    "who won the football match",
    "my cat is ill",
)


def rows(seed: int = 0) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows to train on, and held-out ones whose cores were never seen: 5 of 6 cores a label, and the sixth."""
    chance = random.Random(seed)
    train: list[dict[str, str]] = []
    held_out: list[dict[str, str]] = []
    for kind, cores in _CORES.items():
        for number, core in enumerate(cores):
            for opening, ending in chance.sample(list(itertools.product(_OPENINGS, _ENDINGS)), 5):
                row = {"text": f"{opening}{core}{ending}", "label": LABELS[kind]}
                (held_out if number == len(cores) - 1 else train).append(row)
    chance.shuffle(train)
    return train, held_out


def jsonl(lines: list[dict[str, str]]) -> bytes:
    """As a file."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
