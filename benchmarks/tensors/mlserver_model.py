"""The network in MLServer, as its documentation has it for a model of one's own."""

from __future__ import annotations

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.tensors.network import Network


class MlServerModel(MLModel):  # type: ignore[misc]  # in an environment of its own
    """MLServer's interface to the network."""

    async def load(self) -> bool:
        """Make the network."""
        torch.set_num_threads(1)
        self._network = Network().eval()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The scores of the only input."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        with torch.inference_mode():
            scores = self._network(torch.from_numpy(rows).float())["scores"].numpy()
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
