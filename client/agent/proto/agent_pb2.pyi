from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    FLOAT32: _ClassVar[DType]
    FLOAT64: _ClassVar[DType]
    FLOAT16: _ClassVar[DType]
    BFLOAT16: _ClassVar[DType]
    INT8: _ClassVar[DType]
    INT16: _ClassVar[DType]
    INT32: _ClassVar[DType]
    INT64: _ClassVar[DType]
    UINT8: _ClassVar[DType]
    BOOL: _ClassVar[DType]

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    INFER: _ClassVar[Kind]
    TRAIN: _ClassVar[Kind]
DTYPE_UNSPECIFIED: DType
FLOAT32: DType
FLOAT64: DType
FLOAT16: DType
BFLOAT16: DType
INT8: DType
INT16: DType
INT32: DType
INT64: DType
UINT8: DType
BOOL: DType
KIND_UNSPECIFIED: Kind
INFER: Kind
TRAIN: Kind

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("id", "model", "inputs", "deadline_s")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    id: int
    model: str
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    deadline_s: float
    def __init__(self, id: _Optional[int] = ..., model: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., deadline_s: _Optional[float] = ...) -> None: ...

class PredictReply(_message.Message):
    __slots__ = ("id", "outputs", "model_version", "batch_size", "waited_s", "ran_s")
    ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    WAITED_S_FIELD_NUMBER: _ClassVar[int]
    RAN_S_FIELD_NUMBER: _ClassVar[int]
    id: int
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    model_version: int
    batch_size: int
    waited_s: float
    ran_s: float
    def __init__(self, id: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., model_version: _Optional[int] = ..., batch_size: _Optional[int] = ..., waited_s: _Optional[float] = ..., ran_s: _Optional[float] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class PredictStreamReply(_message.Message):
    __slots__ = ("id", "reply", "refusal")
    ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    id: int
    reply: PredictReply
    refusal: Refusal
    def __init__(self, id: _Optional[int] = ..., reply: _Optional[_Union[PredictReply, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class InputSpec(_message.Message):
    __slots__ = ("dtype", "shape")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "source", "format", "inputs", "latency_s", "batch_size", "largest_batch", "isolation", "broken")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LARGEST_BATCH_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    source: str
    format: str
    inputs: _containers.RepeatedCompositeFieldContainer[InputSpec]
    latency_s: float
    batch_size: int
    largest_batch: int
    isolation: str
    broken: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., source: _Optional[str] = ..., format: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[InputSpec, _Mapping]]] = ..., latency_s: _Optional[float] = ..., batch_size: _Optional[int] = ..., largest_batch: _Optional[int] = ..., isolation: _Optional[str] = ..., broken: _Optional[str] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("name", "path", "task", "inputs", "latency_s", "batch_size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    task: str
    inputs: str
    latency_s: float
    batch_size: int
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., task: _Optional[str] = ..., inputs: _Optional[str] = ..., latency_s: _Optional[float] = ..., batch_size: _Optional[int] = ...) -> None: ...

class ReloadModelRequest(_message.Message):
    __slots__ = ("name", "path")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class TurnRequest(_message.Message):
    __slots__ = ("join", "acquire", "release")
    JOIN_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    join: Join
    acquire: Acquire
    release: Release
    def __init__(self, join: _Optional[_Union[Join, _Mapping]] = ..., acquire: _Optional[_Union[Acquire, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("name", "kind", "latency_s", "expected_s", "rate_hz", "lease_s", "serve_late")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_S_FIELD_NUMBER: _ClassVar[int]
    RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    SERVE_LATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Kind
    latency_s: float
    expected_s: float
    rate_hz: float
    lease_s: float
    serve_late: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., latency_s: _Optional[float] = ..., expected_s: _Optional[float] = ..., rate_hz: _Optional[float] = ..., lease_s: _Optional[float] = ..., serve_late: bool = ...) -> None: ...

class Acquire(_message.Message):
    __slots__ = ("turn", "deadline_s")
    TURN_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    turn: int
    deadline_s: float
    def __init__(self, turn: _Optional[int] = ..., deadline_s: _Optional[float] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("turn", "failed")
    TURN_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    turn: int
    failed: bool
    def __init__(self, turn: _Optional[int] = ..., failed: bool = ...) -> None: ...

class TurnEvent(_message.Message):
    __slots__ = ("joined", "granted", "refused", "expired")
    JOINED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    joined: Joined
    granted: Granted
    refused: Refused
    expired: Expired
    def __init__(self, joined: _Optional[_Union[Joined, _Mapping]] = ..., granted: _Optional[_Union[Granted, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., expired: _Optional[_Union[Expired, _Mapping]] = ...) -> None: ...

class Joined(_message.Message):
    __slots__ = ("name", "lease_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    lease_s: float
    def __init__(self, name: _Optional[str] = ..., lease_s: _Optional[float] = ...) -> None: ...

class Granted(_message.Message):
    __slots__ = ("turn", "waited_s")
    TURN_FIELD_NUMBER: _ClassVar[int]
    WAITED_S_FIELD_NUMBER: _ClassVar[int]
    turn: int
    waited_s: float
    def __init__(self, turn: _Optional[int] = ..., waited_s: _Optional[float] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("turn", "refusal")
    TURN_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    turn: int
    refusal: Refusal
    def __init__(self, turn: _Optional[int] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Expired(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: int
    def __init__(self, turn: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TelemetryRequest(_message.Message):
    __slots__ = ("period_s",)
    PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    period_s: float
    def __init__(self, period_s: _Optional[float] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("device", "board", "mode", "energy_source", "uptime_s", "energy_j", "power_w", "running", "plan", "jobs", "tasks", "idle")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BOARD_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ENERGY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    device: str
    board: str
    mode: str
    energy_source: str
    uptime_s: float
    energy_j: float
    power_w: float
    running: str
    plan: Plan
    jobs: _containers.RepeatedCompositeFieldContainer[JobStatus]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskCosts]
    idle: str
    def __init__(self, device: _Optional[str] = ..., board: _Optional[str] = ..., mode: _Optional[str] = ..., energy_source: _Optional[str] = ..., uptime_s: _Optional[float] = ..., energy_j: _Optional[float] = ..., power_w: _Optional[float] = ..., running: _Optional[str] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ..., jobs: _Optional[_Iterable[_Union[JobStatus, _Mapping]]] = ..., tasks: _Optional[_Iterable[_Union[TaskCosts, _Mapping]]] = ..., idle: _Optional[str] = ...) -> None: ...

class TaskCosts(_message.Message):
    __slots__ = ("workload", "origin", "modes", "idle_modes", "measured_at_s", "time_std", "power_std", "aside_modes", "aside_factor", "spent_s", "spent_j")
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    IDLE_MODES_FIELD_NUMBER: _ClassVar[int]
    MEASURED_AT_S_FIELD_NUMBER: _ClassVar[int]
    TIME_STD_FIELD_NUMBER: _ClassVar[int]
    POWER_STD_FIELD_NUMBER: _ClassVar[int]
    ASIDE_MODES_FIELD_NUMBER: _ClassVar[int]
    ASIDE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    SPENT_S_FIELD_NUMBER: _ClassVar[int]
    SPENT_J_FIELD_NUMBER: _ClassVar[int]
    workload: str
    origin: str
    modes: int
    idle_modes: int
    measured_at_s: float
    time_std: float
    power_std: float
    aside_modes: int
    aside_factor: float
    spent_s: float
    spent_j: float
    def __init__(self, workload: _Optional[str] = ..., origin: _Optional[str] = ..., modes: _Optional[int] = ..., idle_modes: _Optional[int] = ..., measured_at_s: _Optional[float] = ..., time_std: _Optional[float] = ..., power_std: _Optional[float] = ..., aside_modes: _Optional[int] = ..., aside_factor: _Optional[float] = ..., spent_s: _Optional[float] = ..., spent_j: _Optional[float] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("mode", "batch_size", "load", "origin", "rate_hz", "power_limit_w", "feasible", "changes")
    class BatchSizeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_W_FIELD_NUMBER: _ClassVar[int]
    FEASIBLE_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    mode: str
    batch_size: _containers.ScalarMap[str, int]
    load: float
    origin: str
    rate_hz: float
    power_limit_w: float
    feasible: bool
    changes: int
    def __init__(self, mode: _Optional[str] = ..., batch_size: _Optional[_Mapping[str, int]] = ..., load: _Optional[float] = ..., origin: _Optional[str] = ..., rate_hz: _Optional[float] = ..., power_limit_w: _Optional[float] = ..., feasible: bool = ..., changes: _Optional[int] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("name", "kind", "queued", "arrived", "answered", "within", "rejected_late", "rejected_full", "withdrawn", "turns", "busy_s", "latency_p50_s", "latency_p99_s", "rate_hz", "batch_size", "latency_s", "left")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    REJECTED_LATE_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FULL_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_S_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P99_S_FIELD_NUMBER: _ClassVar[int]
    RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Kind
    queued: int
    arrived: int
    answered: int
    within: int
    rejected_late: int
    rejected_full: int
    withdrawn: int
    turns: int
    busy_s: float
    latency_p50_s: float
    latency_p99_s: float
    rate_hz: float
    batch_size: int
    latency_s: float
    left: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., queued: _Optional[int] = ..., arrived: _Optional[int] = ..., answered: _Optional[int] = ..., within: _Optional[int] = ..., rejected_late: _Optional[int] = ..., rejected_full: _Optional[int] = ..., withdrawn: _Optional[int] = ..., turns: _Optional[int] = ..., busy_s: _Optional[float] = ..., latency_p50_s: _Optional[float] = ..., latency_p99_s: _Optional[float] = ..., rate_hz: _Optional[float] = ..., batch_size: _Optional[int] = ..., latency_s: _Optional[float] = ..., left: bool = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("head", "records", "piece", "progress")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    head: Head
    records: bytes
    piece: Piece
    progress: Progress
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., records: _Optional[bytes] = ..., piece: _Optional[_Union[Piece, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("protocol", "code", "kind", "round_id")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    code: str
    kind: str
    round_id: str
    def __init__(self, protocol: _Optional[int] = ..., code: _Optional[str] = ..., kind: _Optional[str] = ..., round_id: _Optional[str] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("data", "last")
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    last: bool
    def __init__(self, data: _Optional[bytes] = ..., last: bool = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("minibatches", "planned", "time_s", "energy_j", "loss", "mode")
    MINIBATCHES_FIELD_NUMBER: _ClassVar[int]
    PLANNED_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    minibatches: int
    planned: int
    time_s: float
    energy_j: float
    loss: float
    mode: str
    def __init__(self, minibatches: _Optional[int] = ..., planned: _Optional[int] = ..., time_s: _Optional[float] = ..., energy_j: _Optional[float] = ..., loss: _Optional[float] = ..., mode: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("round_id", "reason")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    round_id: str
    reason: str
    def __init__(self, round_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelReply(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: bool
    def __init__(self, found: bool = ...) -> None: ...
