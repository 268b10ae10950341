"""The messages of `inference.GRPCInferenceService`, made from the protocol's fields when this is imported.

So no generated code lies here, which would have to fit the version of protobuf that is installed. The descriptors have
a pool of their own, because Triton's client registers the same names in the default one.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
_FILE = "open_inference.proto"
_MODEL = "string model_name = 1; string model_version = 2; string id = 3; parameters = 4;"
_TENSOR = "string name = 1; string datatype = 2; repeated int64 shape = 3;"
_DATA = f"{_TENSOR} parameters = 4; InferTensorContents contents = 5;"
_REPOSITORY = "string repository_name = 1; string model_name = 2;"

# As in a .proto file; a nested message has its parent's name before it, and `parameters` is a map to parameters.
_MESSAGES = {
    "InferParameter": "oneof bool bool_param = 1; oneof int64 int64_param = 2; oneof string string_param = 3; "
    "oneof double double_param = 4; oneof uint64 uint64_param = 5;",
    "ModelRepositoryParameter": "oneof bool bool_param = 1; oneof int64 int64_param = 2; "
    "oneof string string_param = 3; oneof bytes bytes_param = 4;",
    "InferTensorContents": "repeated bool bool_contents = 1; repeated int32 int_contents = 2; "
    "repeated int64 int64_contents = 3; repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; "
    "repeated float fp32_contents = 6; repeated double fp64_contents = 7; repeated bytes bytes_contents = 8;",
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1;",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1;",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3;",
    "ModelReadyRequest": "string name = 1; string version = 2;",
    "ModelReadyResponse": "bool ready = 1;",
    "ModelMetadataRequest": "string name = 1; string version = 2;",
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelMetadataResponse": "string name = 1; repeated string versions = 2; string platform = 3; "
    "repeated ModelMetadataResponse.TensorMetadata inputs = 4; "
    "repeated ModelMetadataResponse.TensorMetadata outputs = 5;",
    "ModelInferRequest.InferInputTensor": _DATA,
    "ModelInferRequest.InferRequestedOutputTensor": "string name = 1; parameters = 2;",
    "ModelInferRequest": f"{_MODEL} repeated ModelInferRequest.InferInputTensor inputs = 5; "
    "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6; repeated bytes raw_input_contents = 7;",
    "ModelInferResponse.InferOutputTensor": _DATA,
    "ModelInferResponse": f"{_MODEL} repeated ModelInferResponse.InferOutputTensor outputs = 5; "
    "repeated bytes raw_output_contents = 6;",
    "ModelConfigRequest": "string name = 1; string version = 2;",
    "ModelConfigResponse": "ModelConfig config = 1;",
    "ModelConfig": "string name = 1; string platform = 2; int32 max_batch_size = 4; repeated ModelInput input = 5; "
    "repeated ModelOutput output = 6; ModelDynamicBatching dynamic_batching = 11; string backend = 17;",
    "ModelInput": "string name = 1; DataType data_type = 2; repeated int64 dims = 4; bool optional = 8;",
    "ModelOutput": "string name = 1; DataType data_type = 2; repeated int64 dims = 3;",
    "ModelDynamicBatching": "uint64 priority_levels = 4; uint64 default_priority_level = 5;",
    "ModelStatisticsRequest": "string name = 1; string version = 2;",
    "ModelStatisticsResponse": "repeated ModelStatistics model_stats = 1;",
    "ModelStatistics": "string name = 1; string version = 2; uint64 inference_count = 4; uint64 execution_count = 5; "
    "InferStatistics inference_stats = 6;",
    "InferStatistics": "StatisticDuration queue = 3; StatisticDuration compute_input = 4; "
    "StatisticDuration compute_infer = 5; StatisticDuration cache_hit = 7; StatisticDuration cache_miss = 8;",
    "StatisticDuration": "uint64 count = 1; uint64 ns = 2;",
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2;",
    "RepositoryIndexResponse.ModelIndex": "string name = 1; string version = 2; string state = 3; string reason = 4;",
    "RepositoryIndexResponse": "repeated RepositoryIndexResponse.ModelIndex models = 1;",
    "RepositoryModelLoadRequest": f"{_REPOSITORY} repository_parameters = 3;",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": f"{_REPOSITORY} repository_parameters = 3;",
    "RepositoryModelUnloadResponse": "",
}
METHODS = (
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
)
_DATA_TYPES = (
    "INVALID",
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "STRING",
    "BF16",
)
_ENUMS = {"DataType": [f"TYPE_{name}" for name in _DATA_TYPES]}
_FIELD = re.compile(r"(?:(repeated|oneof) )?(?:([\w.]+) )?(\w+) = (\d+);")
# Maps to parameters, with the message of their values.
_MAPS = {"parameters": "InferParameter", "repository_parameters": "ModelRepositoryParameter"}
_Message = descriptor_pb2.DescriptorProto
_Field = descriptor_pb2.FieldDescriptorProto


def _describe() -> descriptor_pb2.FileDescriptorProto:
    """The file's descriptor."""
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name in sorted(_MESSAGES, key=lambda name: name.count(".")):  # parents come first
        parent, _, own = name.rpartition(".")
        made[name] = made[parent].nested_type.add(name=own) if parent else file.message_type.add(name=own)
        for label, kind, field, number in _FIELD.findall(_MESSAGES[name]):
            if field in _MAPS:
                _add_map(made[name], name, _MAPS[field], int(number))
            else:
                _add_field(made[name], label, kind, field, int(number))
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    service = file.service.add(name=SERVICE.rpartition(".")[2])
    for method in METHODS:
        service.method.add(
            name=method, input_type=f".{PACKAGE}.{method}Request", output_type=f".{PACKAGE}.{method}Response"
        )
    return file


def _add_field(message: Any, label: str, kind: str, name: str, number: int) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if label == "repeated":
        field.label = _Field.LABEL_REPEATED
    if label == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind in _ENUMS:
        field.type, field.type_name = _Field.TYPE_ENUM, f".{PACKAGE}.{kind}"
    elif kind[0].isupper():
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(_Field, f"TYPE_{kind.upper()}")


def _add_map(message: Any, owner: str, value: str, number: int) -> None:
    """Add `map<string, value> parameters`, which is a repeated message of keys and values."""
    entry = message.nested_type.add(name="ParametersEntry", options=descriptor_pb2.MessageOptions(map_entry=True))
    _add_field(entry, "", "string", "key", 1)
    _add_field(entry, "", value, "value", 2)
    _add_field(message, "repeated", f"{owner}.ParametersEntry", "parameters", number)


POOL = DescriptorPool()
POOL.AddSerializedFile(_describe().SerializeToString())


@cache
def message(name: str) -> Any:
    """The class of a message, such as `ModelInferRequest`."""
    return GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
