"""The network in LitServe, with its batching.

litserve_server.py PORT MOST WAIT_S: at most MOST requests a batch, which wait for others for WAIT_S.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve
import torch

from benchmarks.tensors.network import Network


class Api(litserve.LitAPI):  # type: ignore[misc]  # in an environment of its own
    """LitServe's interface to the network: one row a request."""

    def setup(self, device: str) -> None:
        """Make the network."""
        torch.set_num_threads(1)
        self._network = Network().eval()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # FastAPI reads annotations
        """The row of a request."""
        return request["input"]

    def predict(self, x: Any) -> Any:
        """The scores of one row, or of the rows of a batch."""
        with torch.inference_mode():
            return self._network(torch.tensor(x))["scores"].tolist()

    def encode_response(self, output: Any) -> dict[str, Any]:
        """The answer to one request."""
        return {"scores": output}


if __name__ == "__main__":
    api = Api(max_batch_size=int(sys.argv[2]), batch_timeout=float(sys.argv[3]))
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=True)
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
