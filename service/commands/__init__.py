"""The commands of `sonde` that call a running service, and `sonde check`, `export` and `register`."""

# Listed by `sonde --help` beside the server's own commands.
CLIENT_COMMANDS = {
    "embed": "turn texts into vectors",
    "classify": "label texts",
    "anomaly": "find unusual texts or readings",
    "forecast": "forecast a series",
    "detect": "find objects in images",
    "ocr": "read the text of images",
    "rerank": "sort documents by relevance",
    "check": "check a training file, without a service",
    "export": "make a .pt2 of a PyTorch module, without a service",
    "register": "put a .pt2 into the registry of a service",
    "train": "train a model on a file, and watch",
    "jobs": "list, watch and control jobs",
    "report": "show a job's report",
    "models": "list models; promote, roll back, delete",
    "feedback": "tell the right label of a text",
}
