"""The HTTP contract of files, feedback and fine-tuning jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, StringConstraints, WithJsonSchema, model_validator

from models.images.data_uri import MAX_KEPT_CHARACTERS
from service.api.schemas.answers import ListAnswer, ListAnswerWithIds, ResponseBody
from service.api.schemas.images import IMAGE_SCHEMA, EncodedImage, check_image
from service.api.schemas.requests import MODEL, RequestBody, to_integer
from service.errors import InvalidRequest

# PostgreSQL stores every character but NUL.
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEPT_CHARACTERS, pattern=r"^[^\x00]*$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00]*$")]
Suffix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
METADATA_KEY = r'^[^\x00"\\]{1,64}$'  # what a JSON path can name in both databases
MAX_METADATA = 16
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=METADATA_KEY)]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(to_integer)]
Task = Literal["classification", "embedding", "anomaly", "rerank", "forecast"]
Owner = Annotated[str | None, Field(description="the API key that made it; null from before keys owned anything")]
# Keys of another pattern are refused; a pattern alone does not say that in JSON Schema.
_NO_OTHERS: dict[str, Any] = {"additionalProperties": False}
Columns = Annotated[dict[Name, Name], Field(max_length=16, json_schema_extra=_NO_OTHERS)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA, json_schema_extra=_NO_OTHERS)]
Hyperparameters = Annotated[
    dict[str, Any], Field(max_length=64, description="what a task takes is in docs/reference/hyperparameters.md")
]


class FileObject(ResponseBody):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None = Field(description="when it is deleted; null keeps it")
    filename: str
    purpose: str
    status: Literal["processed"]
    sha256: str
    owner: Owner


class FileList(ListAnswerWithIds[FileObject]):
    pass


class FileDeleted(ResponseBody):
    id: str
    object: Literal["file"]
    deleted: bool


def _check_image(value: object) -> EncodedImage:
    """One image, which came itself."""
    image = check_image(value, "image")
    if image.url is not None:
        raise InvalidRequest.at("image", "expected the image itself as base64 or as a data URI, got a URL")
    return image


class FeedbackBody(RequestBody):
    _exactly_one = ("text", "image")

    model: Name = Field(description="the model that was asked")
    text: Text | None = None
    image: Annotated[EncodedImage | None, PlainValidator(_check_image), WithJsonSchema(IMAGE_SCHEMA)] = Field(
        None, description="an image as base64 or a data URI, in place of a text"
    )
    label: Label | None = Field(None, description="the label it gave")
    correct_label: Label = Field(description="the label it should have given; the same one to confirm it")


class FeedbackObject(ResponseBody):
    id: str
    object: Literal["feedback"]
    created_at: int
    model: str
    text: str | None = Field(description="null for an image")
    image: str | None = Field(description="a data URI of at most 100,000 characters; null for a text")
    label: str | None
    correct_label: str


class FeedbackList(ListAnswerWithIds[FeedbackObject]):
    pass


class Supervised(RequestBody):
    task: Task = Field("classification", description="what the model is to do")
    hyperparameters: Hyperparameters = Field(default_factory=dict)
    columns: Columns = Field(default_factory=dict, description="field that is expected → column of the file")


class FileCheckBody(Supervised):
    pass


class FileReport(ResponseBody):
    object: Literal["fine_tuning.report"]
    status: Literal["ok", "warn", "fail", "skipped", "not run"]
    rungs: list[dict[str, Any]] = Field(description="stages with their findings, as in a job's report")


class Method(RequestBody):
    type: Literal["supervised"]
    supervised: Supervised = Field(default_factory=Supervised)


class JobBody(RequestBody):
    model: str = MODEL
    training_file: FileName = Field(description="a file's id, or feedback:MODEL")
    validation_file: FileName | None = Field(None, description="a file's id; without one, rows are held out")
    suffix: Suffix | None = Field(None, description="last part of the new model's name")
    seed: Seed | None = Field(None, description="the same seed on the same machine gives the same model; 0 by default")
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(
        None, description="older way to say method.supervised.hyperparameters"
    )
    metadata: Metadata | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = Field(
        None, description="accepted as null or empty, as clients send it"
    )

    @model_validator(mode="after")
    def _require_one_place(self) -> JobBody:
        if self.hyperparameters and self.method is not None:
            raise ValueError("give hyperparameters either in method.supervised or at the top, not both")
        return self


class JobError(ResponseBody):
    code: str
    message: str
    param: str | None


class JobObject(ResponseBody):
    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    status: Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
    paused: bool = Field(description="a paused job has the status queued, since OpenAI's clients know no other")
    model: str
    fine_tuned_model: str | None
    training_file: str
    validation_file: str | None
    result_files: list[str]
    seed: int
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    organization_id: str
    error: JobError | None
    estimated_finish: int | None
    trained_tokens: int | None
    metadata: dict[str, str] | None
    waiting: str | None = Field(None, description="why a queued job does not begin: no worker is running; else null")
    attempt: int = Field(description="how often it was begun")
    result: dict[str, Any] | None = Field(description="version, metrics, promoted or held, and why")
    owner: Owner


class JobList(ListAnswer[JobObject]):
    pass


class JobEventObject(ResponseBody):
    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] | None


class EventList(ListAnswer[JobEventObject]):
    pass


class CheckpointObject(ResponseBody):
    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, Any]


class CheckpointList(ListAnswerWithIds[CheckpointObject]):
    pass
