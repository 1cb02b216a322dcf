"""What the footer of a Parquet file says and polars does not: how large its row groups are, what its bytes are.

The footer is Thrift's compact protocol (apache/thrift, doc/specs/thrift-compact-protocol.md); its fields are those
of ``parquet.thrift`` (apache/parquet-format). What is in the row groups is not here (``formats``).
"""

from pathlib import Path
from typing import Any, Final

_TAIL: Final = 8  # bytes: the footer's length and the magic
_MAX_FOOTER: Final = 16 << 20
_ROW_GROUPS: Final = 4  # of FileMetaData
_COLUMNS: Final = 1  # of RowGroup
_META_DATA: Final = 3  # of ColumnChunk
_COMPRESSED_SIZE: Final = 7  # of ColumnMetaData
_SCHEMA: Final = 2  # of FileMetaData
_TYPE: Final = 1  # of SchemaElement
_NAME: Final = 4
_CHILDREN: Final = 5
_LOGICAL_TYPE: Final = 10
_FIXED: Final = 7  # FIXED_LEN_BYTE_ARRAY
_UUID: Final = 14  # of LogicalType
_TRUE: Final = 1
_FALSE: Final = 2


def largest_row_group(path: Path) -> int:
    """Return the bytes of the largest row group as they stand in the file.

    Raises:
        ValueError: the footer cannot be read.

    """
    try:
        groups = _footer(path)[_ROW_GROUPS]
        return max(
            (sum(chunk[_META_DATA][_COMPRESSED_SIZE] for chunk in group[_COLUMNS]) for group in groups), default=0
        )
    except (IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("its footer is damaged") from error


def binary_columns(path: Path) -> dict[str, str]:
    """Return which columns of fixed-length bytes there are, not within others: ``uuid`` by the file, or ``fixed``.

    Raises:
        ValueError: the footer cannot be read.

    """
    try:
        elements = _footer(path)[_SCHEMA]
        found: dict[str, str] = {}
        depths: list[int] = []  # how many elements are still to come, at each level
        for element in elements:
            while depths and not depths[-1]:
                depths.pop()
            if depths:
                depths[-1] -= 1
            if len(depths) == 1 and element.get(_TYPE) == _FIXED and not element.get(_CHILDREN):
                kind = "uuid" if _UUID in element.get(_LOGICAL_TYPE, {}) else "fixed"
                found[element[_NAME].decode("utf-8", "replace")] = kind
            if element.get(_CHILDREN):
                depths.append(element[_CHILDREN])
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its footer is damaged") from error
    return found


def _footer(path: Path) -> dict[int, Any]:
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - _TAIL))
        length = int.from_bytes(file.read(4), "little")
        if not 0 < length <= min(_MAX_FOOTER, end - _TAIL):
            raise ValueError("its footer is damaged or too large")
        file.seek(end - _TAIL - length)
        return _Reader(file.read(length)).struct()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:  # noqa: ANN401
        match kind:
            case 1 | 2 | 3:  # a truth value within a list is a byte too
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                self._at += 8
                return None
            case 8:
                length = self._unsigned()  # which moves on too
                self._at += length
                return self._data[self._at - length : self._at]
            case 9 | 10:
                head = self._byte()
                size = head >> 4 if head >> 4 != 15 else self._unsigned()
                return [self._value(head & 15) for _ in range(size)]
            case 12:
                return self.struct()
            case _:
                raise KeyError(kind)

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 128:
            number |= (byte & 127) << shift
            shift += 7
        return number | byte << shift

    def _signed(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)
