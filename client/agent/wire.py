"""The content of a message between ClientApp and agent, in parts; without torch.

Flower's own serialisation carries the records, so that a record or an array is the same here as
between server and client. The data of arrays follow in pieces: no part is large, however large a
model is.
"""

from __future__ import annotations

from collections.abc import Iterator

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from google.protobuf.message import DecodeError

from powerctl.errors import InvalidInput
from wattfed.client.agent.proto import agent_pb2 as pb

RUN_CONFIG, NODE_CONFIG = "run-config", "node-config"  # records beside the message's own
_PIECE_BYTES = 1 << 20  # well below the 4 MiB that gRPC allows a message by default
_Record = ArrayRecord | MetricRecord | ConfigRecord


def parts_of(content: RecordDict) -> Iterator[pb.Part]:
    """The parts of a message's content."""
    records = RecordDict({name: _emptied(record) for name, record in content.items()})
    yield pb.Part(records=recorddict_to_proto(records).SerializeToString())
    for record in content.array_records.values():
        for array in record.values():
            for start in range(0, len(array.data) or 1, _PIECE_BYTES):
                end = start + _PIECE_BYTES
                piece = pb.Piece(data=array.data[start:end], last=end >= len(array.data))
                yield pb.Part(piece=piece)


class Assembly:
    """Puts a message's content together again from its parts."""

    def __init__(self) -> None:
        self._records: RecordDict | None = None
        self._pieces: list[bytes] = []
        self._data: list[bytes] = []

    def add(self, part: pb.Part) -> None:
        """Take the next part; raises `InvalidInput` if it is none of Flower's records."""
        if part.WhichOneof("what") == "records":
            try:
                self._records = recorddict_from_proto(RecordDictProto.FromString(part.records))
            except (DecodeError, ValueError, TypeError, AttributeError) as error:
                raise InvalidInput(f"a message's records cannot be read: {error}") from None
        elif part.WhichOneof("what") == "piece":
            self._pieces.append(part.piece.data)
            if part.piece.last:
                self._data.append(b"".join(self._pieces))
                self._pieces = []

    def content(self) -> RecordDict:
        """The content; raises `InvalidInput` if parts are missing, or too many."""
        if self._records is None:
            raise InvalidInput("a message ended before its records")
        data = iter(self._data)
        arrays = [len(record) for record in self._records.array_records.values()]
        if self._pieces or len(self._data) != sum(arrays):
            raise InvalidInput(f"a message has {sum(arrays)} arrays, {len(self._data)} came")
        return RecordDict(
            {
                name: _filled(record, data) if isinstance(record, ArrayRecord) else record
                for name, record in self._records.items()
            }
        )


def _emptied(record: _Record) -> _Record:
    """A record as it is; of arrays, all but their data."""
    return _filled(record, None) if isinstance(record, ArrayRecord) else record


def _filled(record: ArrayRecord, data: Iterator[bytes] | None) -> ArrayRecord:
    return ArrayRecord(
        {
            name: Array(one.dtype, one.shape, one.stype, next(data) if data else b"")
            for name, one in record.items()
        }
    )
