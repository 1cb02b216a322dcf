"""How bytes become rows: compression, lines, CSV, TSV, NDJSON, JSON and Parquet, read in blocks.

A block is a few megabytes and holds a bounded number of rows and cells, so that memory stays bounded whatever the
file's size and form; what cannot be cut into such blocks is refused with the limit that it goes beyond. Each block
is read in bulk; only lines that the bulk reader would not take as they stand go through a slower reader, one by
one, with the same result wherever a block happens to end. What the columns mean is not here (``sources``,
``checks``).
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson
import polars as pl
import zstandard

from earmark.ingestion.errors import DamagedFileError
from earmark.ingestion.parquet_footer import binary_columns, largest_row_group

BLOCK_BYTES: Final = 8 << 20
MAX_LINE: Final = 1 << 20  # bytes; a longer line is rejected
MAX_TEXT: Final = 64 << 10  # bytes of one field
MAX_RECORD_LINES: Final = 1000  # lines that one quoted CSV record may span
MAX_DOCUMENT: Final = 64 << 20  # bytes of a file that has to be read whole (XML)
MAX_ROW_GROUP: Final = 160 << 20  # bytes of a row group of Parquet as they stand in the file: it is held whole
MAX_COLUMNS: Final = 1000
MAX_LINES: Final = 50_000  # of one block: each costs memory, however short it is
_MAX_OBJECTS: Final = 10_000  # JSON objects of one block: they share their columns, be there MAX_COLUMNS of them
_MAX_CELLS: Final = 2_000_000  # of one block of JSON objects, whose keys differ
_MAX_ELEMENT: Final = 4 << 20  # bytes of one element of a JSON array
_MANY_COLUMNS: Final = 100  # with more, blocks are smaller: an empty cell costs as much as sixteen bytes
KEPT_OF_LONG_LINE: Final = 1024
_NAMED: Final = 12  # columns in a message
HEAD_BYTES: Final = 256 << 10
_MAY_BE_BLANK: Final = np.frombuffer(b"\n \t", dtype=np.uint8)  # what a blank line begins with
_PARQUET_ROWS: Final = 20_000
_UUID_PARTS: Final = ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))  # of 32 digits: where and how many
_FIRST_PARQUET_ROWS: Final = 500  # how wide rows are is known only from rows
LINE: Final = "_line"
TEXT: Final = "_text"
DOCUMENT: Final = "_document"
# Columns of frames on their way to the database; a file may hold columns of these names too.
_OUR_NAMES: Final = frozenset(
    (
        *(LINE, TEXT, DOCUMENT, "_problem", "_unique_id", "_identity", "_listener", "_original"),
        *("_bad_ip", "_address", "_made"),
    )
)


class Shape(StrEnum):
    """What a source asks of a file."""

    LINES = "lines"  # a frame of line, text
    RECORDS = "records"  # a frame of line and the file's own columns
    DOCUMENT = "document"  # a frame of one row: line, document (the bytes of the whole file)


class Format(StrEnum):
    """How a file is written."""

    DELIMITED = "delimited"
    NDJSON = "ndjson"
    JSON = "json"
    PARQUET = "parquet"
    XML = "xml"


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is refused. ``original`` is None until it is looked up in its block."""

    line: int
    field: str | None
    reason: str
    detail: str
    original: bytes | None = None


@dataclass(slots=True)
class Block:
    """Rows that were read together, lines that could not be, and how to find a row's original text."""

    rows: pl.DataFrame
    rejects: list[Reject] = field(default_factory=list)
    original: Callable[[int], bytes] = lambda _line: b""
    text_is_sound: bool = False  # no text of it holds a NUL or is longer than MAX_TEXT


@dataclass(frozen=True, slots=True)
class Head:
    """What a file looks like: its format, the start of its text, and the columns of its records.

    ``bare_cr`` says that its lines end with a CR alone, ``names_separator`` that its first line is Excel's
    ``sep=;``. The text is as the readers see it: UTF-8, with LF.
    """

    name: str
    format: Format
    text: bytes
    columns: tuple[str, ...] = ()
    separator: str = ","
    bare_cr: bool = False
    names_separator: bool = False

    def lines(self, count: int = 200) -> list[str]:
        """Return the first lines that are not blank."""
        whole = self.text if len(self.text) < HEAD_BYTES else self.text.rpartition(b"\n")[0] or self.text
        found = (line.decode("utf-8", "replace").rstrip("\r") for line in whole.split(b"\n"))
        return [line for line in found if line.strip()][:count]

    def keys(self) -> tuple[str, ...]:
        """Return the keys of JSON rows as far as its start shows them."""
        if self.columns:
            return self.columns
        return tuple(dict.fromkeys(_KEY.findall(self.text.decode("utf-8", "replace"))))


def printable(text: str, most: int = 40) -> str:
    """Return the beginning of a text as a message may show it."""
    return "".join(character if character.isprintable() else "?" for character in text[:most])


# --- Streams ----------------------------------------------------------------------------------------------


class _ZstdStream(io.RawIOBase):
    """Zstandard that notices a truncated file, as the library's own stream does not."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame = self._decompressor.decompressobj()
        self._ready = memoryview(b"")
        self._inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (a writable buffer)
        while not self._ready:
            # Small pieces: four bytes can become 128 kB.
            piece = self._frame.unused_data if self._frame.eof else b""
            piece = piece or self._raw.read(256)
            if not piece:
                if self._inside:
                    raise EOFError("the stream ends early")
                return 0
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._ready = memoryview(self._frame.decompress(piece))
            self._inside = not self._frame.eof
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


class _Stream:
    """The decompressed bytes of a file as UTF-8; what is damaged is said so, with the file's name.

    UTF-16 is known by its mark, or by a NUL in every other byte at the start, which no other text has. A lone half
    of a surrogate pair becomes bytes that are no UTF-8: a reject of its line. With ``bare_cr`` a CR becomes an LF.
    """

    def __init__(self, path: Path, name: str, *, bare_cr: bool = False) -> None:
        self._name = name
        self._bare_cr = bare_cr
        self._begun = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._held = b""  # a CR at the end of a piece: an LF may follow it
        self._file = path.open("rb")
        magic = self._file.read(8)
        self._file.seek(0)
        self.parquet = magic.startswith(b"PAR1")
        self._open: Any = self._file
        if magic.startswith(b"\x1f\x8b"):
            self._open = gzip.GzipFile(fileobj=self._file)
        elif magic.startswith(b"\x28\xb5\x2f\xfd"):
            self._open = io.BufferedReader(_ZstdStream(self._file), 1 << 20)
        for start, kind in _NOT_READ:
            if magic.startswith(start):
                self._file.close()
                raise DamagedFileError(
                    f"{name}: is {kind}, which is not read: give plain text, gzip, Zstandard or Parquet"
                )

    @property
    def recoded(self) -> bool:
        """Whether the file itself is not UTF-8."""
        return self._decoder is not None

    def read(self, size: int) -> bytes:
        """Return about so many bytes of text, none at the end."""
        while True:
            raw = self._read_raw(size if self._begun else max(size, len(_NUL_AT_ODD)))
            if not self._begun:
                self._begun = True
                encoding = _wide_encoding(raw)
                self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass") if encoding else None
            data = self._decode(raw)
            if self._bare_cr:
                data, self._held = self._held + data, b""
                if raw and data.endswith(b"\r"):
                    data, self._held = data[:-1], b"\r"
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if data or not raw:
                return data

    def _decode(self, raw: bytes) -> bytes:
        if self._decoder is None:
            return raw
        try:
            text = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            raise DamagedFileError(
                f"{self._name}: is UTF-16 text that ends within a character; nothing was loaded. "
                "Fetch the file again"
            ) from error
        return text.encode("utf-8", "surrogatepass")

    def _read_raw(self, size: int) -> bytes:
        try:
            return self._open.read(size)  # type: ignore[no-any-return]
        except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile) as error:
            raise DamagedFileError(
                f"{self._name}: is damaged: its compressed stream is truncated or corrupt ({error}); "
                "nothing was loaded. Fetch the file again"
            ) from error

    def close(self) -> None:
        self._file.close()


_NUL_AT_ODD: Final = (False, True, False, True)


def _wide_encoding(start: bytes) -> str | None:
    """Return the UTF-16 that a text is written in by its first bytes, None where it is none."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    nuls = tuple(byte == 0 for byte in start[: len(_NUL_AT_ODD)])
    if nuls == _NUL_AT_ODD:
        return "utf-16-le"
    return "utf-16-be" if nuls == _NUL_AT_ODD[::-1] else None


def _ends_with_bare_cr(text: bytes) -> bool:
    """Say whether lines end with a CR alone: outside of quotes there are CRs and no LF."""
    if b"\r" not in text:
        return False
    content = np.frombuffer(text, dtype=np.uint8)
    outside = content[np.cumsum(content == ord('"'), dtype=np.uint8) % 2 == 0].tobytes()
    return b"\r" in outside and b"\n" not in outside


_NOT_READ: Final = (
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\xff\xfe\0\0", "UTF-32 text"),
    (b"\0\0\xfe\xff", "UTF-32 text"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite f", "a SQLite database"),
)


def read_head(path: Path, name: str) -> Head:
    """Look at the start of a file.

    Raises:
        DamagedFileError: it is damaged or of a kind that is not read.

    """
    stream = _Stream(path, name)
    try:
        if stream.parquet:
            return Head(name, Format.PARQUET, b"", tuple(_parquet_schema(path, name)))
        text = b""
        while len(text) < HEAD_BYTES and (piece := stream.read(HEAD_BYTES - len(text))):
            text += piece
    finally:
        stream.close()
    text = text.removeprefix(b"\xef\xbb\xbf")
    start = text.lstrip()[:1]
    if start == b"<":
        return Head(name, Format.XML, text)
    bare_cr = _ends_with_bare_cr(text)
    if bare_cr:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if start in (b"{", b"["):
        return replace(_json_head(name, text), bare_cr=bare_cr)
    head = Head(name, Format.DELIMITED, text, bare_cr=bare_cr)
    lines = head.lines(2)
    if not lines:
        return head
    named = _SEPARATOR_LINE.match(lines[0])
    if named and len(lines) == 1:
        return head
    header = lines[1] if named else lines[0]
    separator = named[1] if named else max((",", "\t", ";"), key=header.count)
    columns = tuple((column or "").strip() for column in _fields(header, separator, strict=False) or [header])
    return replace(head, columns=columns, separator=separator, names_separator=named is not None)


_SEPARATOR_LINE: Final = re.compile(r'^"?sep=([,;\t])"?[,;\t]*$', re.IGNORECASE)


def _json_head(name: str, text: bytes) -> Head:
    columns: dict[str, None] = {}
    head = Head(name, Format.NDJSON, text)
    lines = head.lines()
    for number, line in enumerate(lines):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if not isinstance(value, dict):
            continue
        if number == 0 and len(lines) == 1 and isinstance(value.get("rows"), list):
            return Head(name, Format.JSON, text)
        columns.update(dict.fromkeys(value))
    suffixed = re.search(r"\.(ndjson|jsonl)\b", name, re.IGNORECASE) is not None
    if text.lstrip().startswith(b"{") and (columns or suffixed):
        return Head(name, Format.NDJSON, text, tuple(columns))
    return Head(name, Format.JSON, text)


def read_document(path: Path, name: str) -> bytes:
    """Read a file whole.

    Raises:
        DamagedFileError: it is damaged or too large to be read whole.

    """
    stream = _Stream(path, name)
    try:
        document = io.BytesIO()
        while piece := stream.read(1 << 20):
            if document.write(piece) and document.tell() > MAX_DOCUMENT:
                raise DamagedFileError(
                    f"{name}: is longer than {MAX_DOCUMENT >> 20} MB, the most that is read whole: "
                    "give large files as NDJSON (one JSON object a line), CSV or Parquet"
                )
    finally:
        stream.close()
    if stream.recoded:
        return _ENCODING_DECLARED.sub(rb"\1", document.getvalue(), count=1)
    return document.getvalue()


# What XML says of an encoding that it is not in any more.
_ENCODING_DECLARED: Final = re.compile(rb"^(\s*(?:\xef\xbb\xbf)?<\?xml[^>]*?)\sencoding\s*=\s*[\"'][^\"']*[\"']")


# --- Lines ------------------------------------------------------------------------------------------------


class _Lines:
    """Whole lines of a file without the blank ones, and the rejects among them.

    ``data`` are the same lines as bytes, where all are good; then ``frame`` (line, text) is made on demand.
    """

    def __init__(
        self,
        first_line: int,
        data: bytes | None,
        frame: pl.DataFrame | None,
        rejects: list[Reject],
        *,
        last: bool,
        longest: int = MAX_LINE,
    ) -> None:
        self.data = data
        self.rejects = rejects
        self.last = last
        self.first_line = first_line
        self.longest = longest  # bytes of the longest line
        self._frame = frame

    @property
    def frame(self) -> pl.DataFrame:
        """The lines as a frame."""
        if self._frame is None:
            self._frame = _numbered(_texts(self.data or b""), self.first_line)
        return self._frame

    def without_first(self) -> "_Lines":
        """Return the lines after the first."""
        if self.data is None:
            return _Lines(self.first_line, None, self.frame.slice(1), self.rejects, last=self.last)
        rest = self.data.partition(b"\n")[2]
        return _Lines(self.first_line + 1, rest, None, self.rejects, last=self.last, longest=self.longest)


class _Taken:
    """Whole lines from a stream that are handed out some at a time; ``long`` is the reject that follows them."""

    def __init__(self, data: bytes, long: Reject | None) -> None:
        self._data = data
        self._at = 0
        self.lines = 0 if data.isspace() else data.count(b"\n")  # that are left; of blank ones none is read
        self.long = long

    def cut(self, most: int) -> bytes:
        """Return the next lines, at most so many, nearly as many where they are alike; all that is left last."""
        start, end, count = self._at, len(self._data), self.lines
        if count > most:
            while count > most:
                end = start + (end - start) * most // count
                count = self._data.count(b"\n", start, end)
            end = (self._data.rfind(b"\n", start, end) if count else self._data.index(b"\n", start)) + 1
            count = max(count, 1)
        self.lines -= count
        self._at = end
        return self._data[start:end]


class _LineReader:
    """Cuts a stream into blocks of whole lines, and takes back lines that belong to the next block."""

    def __init__(self, stream: _Stream, block_bytes: int, max_lines: int = MAX_LINES) -> None:
        self._stream = stream
        self._block_bytes = block_bytes
        self._max_lines = max_lines
        self._rest = b""
        self._next_line = 1  # after all that was taken from the stream
        self._first_line = 1  # of what is handed out next
        self._done = False
        self._taken = _Taken(b"", None)
        self._returned: pl.DataFrame | None = None

    def __iter__(self) -> Iterator[_Lines]:
        while not self._done or self._taken.lines:
            yield self._read()

    def give_back(self, lines: pl.DataFrame) -> None:
        """Put lines before the next block."""
        self._returned = lines

    def _read(self) -> _Lines:
        first_line = self._first_line
        if not self._taken.lines:
            self._taken = _Taken(*self._whole_lines())
        data = self._taken.cut(self._max_lines)
        is_rest = self._taken.lines > 0
        long = None if is_rest else self._taken.long
        last = self._done and not is_rest
        self._first_line = first_line + data.count(b"\n") if is_rest else self._next_line
        if first_line == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        if b"\r\n" in data:
            data = data.replace(b"\r\n", b"\n")
        returned, self._returned = self._returned, None
        if long is None and returned is None and data.isspace():
            return _Lines(first_line, b"", None, [], last=last)
        if long is None and returned is None and (longest := _longest_if_clean(data)) is not None:
            return _Lines(first_line, data, None, [], last=last, longest=longest)
        frame, rejects = _decode(data, first_line)
        if long is not None:
            rejects.append(long)
        kept = frame.filter(
            pl.col(TEXT).str.contains(r"[^ \t\r\v\f]") & (pl.col(TEXT).str.len_bytes() <= MAX_LINE)
        )
        if kept.height != frame.height:
            too_long = frame.filter(pl.col(TEXT).str.len_bytes() > MAX_LINE)
            rejects += [_long_line(line, text.encode()) for line, text in too_long.iter_rows()]
        if returned is not None:
            kept = pl.concat([returned, kept])
        return _Lines(first_line, None, kept, rejects, last=last)

    def _whole_lines(self) -> tuple[bytes, Reject | None]:
        pieces = [self._rest]
        size = len(self._rest)
        while True:
            piece = self._stream.read(self._block_bytes)
            if not piece:
                self._done = True
                data, self._rest = b"".join(pieces), b""
                break
            end = piece.rfind(b"\n")
            if end >= 0:
                data, self._rest = b"".join([*pieces, piece[: end + 1]]), piece[end + 1 :]
                break
            pieces.append(piece)
            size += len(piece)
            if size > 2 * MAX_LINE:
                data, long = self._skip_line(b"".join(pieces))
                self._next_line += data.count(b"\n") + 1
                return data, long
        self._next_line += data.count(b"\n")
        return data, None

    def _skip_line(self, data: bytes) -> tuple[bytes, Reject]:
        """Leave out a last line that is so long that it is not even held in memory."""
        end = data.rfind(b"\n") + 1
        size = len(data) - end
        while piece := self._stream.read(self._block_bytes):
            at = piece.find(b"\n")
            if at >= 0:
                size += at
                self._rest = piece[at + 1 :]
                break
            size += len(piece)
        else:
            self._done = True
            self._rest = b""
        line = self._next_line + data.count(b"\n", 0, end)
        return data[:end], _long_line(line, data[end:], size)


def _long_line(line: int, text: bytes, size: int | None = None) -> Reject:
    size = size if size is not None else len(text)
    detail = f"the line is {size} bytes long; {MAX_LINE} are allowed (its first {KEPT_OF_LONG_LINE} are kept)"
    return Reject(line, None, "line_too_long", detail, text[:KEPT_OF_LONG_LINE])


def _longest_if_clean(data: bytes) -> int | None:
    """Return the length of the longest line, None unless all lines are text, none blank and none too long.

    At a tenth of the cost of looking at each line.
    """
    if any(byte in data for byte in (b"\0", b"\r", b"\v", b"\f")) or not _is_utf8(data):
        return None
    content = np.frombuffer(data, dtype=np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(content == ord("\n")) + 1))
    starts = starts[starts < len(content)]
    longest = int(np.diff(np.append(starts, len(content))).max(initial=0))
    return None if longest > MAX_LINE or np.isin(content[starts], _MAY_BE_BLANK).any() else longest


def _texts(data: bytes) -> pl.Series:
    return pl.read_lines(data).to_series() if data else pl.Series([], dtype=pl.String)


def _decode(data: bytes, first_line: int) -> tuple[pl.DataFrame, list[Reject]]:
    if b"\0" not in data and _is_utf8(data):
        return _numbered(_texts(data), first_line), []
    numbers: list[int] = []
    good: list[str] = []
    rejects: list[Reject] = []
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, first_line):
        if len(line) > MAX_LINE:
            rejects.append(_long_line(number, line))
            continue
        if b"\0" in line:
            rejects.append(Reject(number, None, "nul", "the line holds a NUL byte, which text cannot", line))
            continue
        try:
            good.append(line.decode())
            numbers.append(number)
        except UnicodeDecodeError as error:
            detail = f"byte {error.start + 1} of the line is not UTF-8 (0x{line[error.start]:02x})"
            rejects.append(Reject(number, None, "not_utf8", detail, line))
    return pl.DataFrame({LINE: numbers, TEXT: good}, schema={LINE: pl.Int64, TEXT: pl.String}), rejects


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _numbered(texts: pl.Series, first_line: int) -> pl.DataFrame:
    numbers = pl.int_range(first_line, first_line + len(texts), eager=True, dtype=pl.Int64)
    return pl.DataFrame({LINE: numbers, TEXT: texts.alias(TEXT)})


def _originals(frame: pl.DataFrame) -> Callable[[int], bytes]:
    texts: dict[int, str] = {}

    def original(line: int) -> bytes:
        if not texts:
            texts.update(frame.select(LINE, TEXT).iter_rows())
        return texts[line].encode()

    return original


# --- Blocks -----------------------------------------------------------------------------------------------


def read_blocks(path: Path, head: Head, shape: Shape, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Read a file in the shape that its source asks for.

    Raises:
        DamagedFileError: the file cannot be read as what it is.

    """
    if shape is Shape.DOCUMENT:
        document = read_document(path, head.name)
        # As an object: polars would copy it twice.
        yield Block(pl.DataFrame({LINE: [1], DOCUMENT: pl.Series([document], dtype=pl.Object)}))
        return
    if shape is Shape.RECORDS and head.format is Format.PARQUET:
        yield from _parquet_blocks(path, head.name)
        return
    if shape is Shape.RECORDS and head.format is Format.JSON:
        yield from _json_blocks(path, head.name, max(1, block_bytes // 4))
        return
    stream = _Stream(path, head.name, bare_cr=head.bare_cr)
    try:
        if shape is Shape.LINES:
            for lines in _LineReader(stream, block_bytes):
                yield Block(lines.frame, lines.rejects, _originals(lines.frame))
        elif head.format is Format.NDJSON:
            for lines in _LineReader(stream, block_bytes, _MAX_OBJECTS):
                yield from _ndjson_blocks(lines.frame, lines.rejects, head.name, lines.data or None)
        else:
            if len(head.columns) > _MANY_COLUMNS:
                block_bytes = max(1, block_bytes // 4)
            yield from _delimited_blocks(_LineReader(stream, block_bytes), head)
    finally:
        stream.close()


# --- NDJSON and JSON --------------------------------------------------------------------------------------


def _ndjson_blocks(
    frame: pl.DataFrame, rejects: list[Reject], name: str, data: bytes | None = None
) -> Iterator[Block]:
    """Parse lines that hold a JSON object each; every value becomes text, a nested one its JSON.

    Raises:
        DamagedFileError: the lines have too many different keys.

    """
    if frame.is_empty():
        yield Block(pl.DataFrame(schema={LINE: pl.Int64}), rejects)
        return
    if data is None:
        data = "\n".join(frame[TEXT].to_list()).encode()
    keys: dict[str, None] = {}
    bad = _gather_keys(data, keys, name)
    most = _MAX_CELLS // max(1, len(keys))
    if frame.height <= most:
        yield _ndjson_block(frame, rejects, data, keys, bad)
        return
    # Rows of many keys that differ: each part has fewer of them.
    yield Block(pl.DataFrame(schema={LINE: pl.Int64}), rejects)
    for part in frame.iter_slices(most):
        yield from _ndjson_blocks(part, [], name)


def _ndjson_block(
    frame: pl.DataFrame, rejects: list[Reject], data: bytes, keys: dict[str, None], bad: set[int]
) -> Block:
    original = _originals(frame)
    if not bad:
        parsed = _parse_ndjson(data, frame.height, keys)
        if parsed is not None:
            return Block(parsed.with_columns(frame[LINE]), rejects, original)
    lines = list(frame.iter_rows())
    rejects += [_broken_json(*lines[at]) for at in bad]
    parts: list[pl.DataFrame] = []
    pending = [[line for at, line in enumerate(lines) if at not in bad]]
    while pending:
        lines = pending.pop()
        if not lines:
            continue
        parsed = _parse_ndjson("\n".join(text for _, text in lines).encode(), len(lines), keys)
        if parsed is not None:
            parts.append(parsed.with_columns(pl.Series(LINE, [line for line, _ in lines], pl.Int64)))
        elif len(lines) == 1:
            rejects.append(_broken_json(*lines[0]))
        else:
            middle = len(lines) // 2
            pending += [lines[:middle], lines[middle:]]
    rows = pl.concat(parts).sort(LINE) if parts else pl.DataFrame(schema={LINE: pl.Int64})
    return Block(rows, rejects, original)


def _gather_keys(data: bytes, keys: dict[str, None], name: str) -> set[int]:
    """Put the keys of the objects into ``keys``, as they come; returns which lines hold no object.

    Not by polars: what it takes to find them grows with the square of their number.
    """
    bad = set()
    for at, line in enumerate(data.removesuffix(b"\n").split(b"\n")):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            bad.add(at)
            continue
        if not isinstance(value, dict):
            bad.add(at)
        elif not value.keys() <= keys.keys():
            keys.update(dict.fromkeys(value))
            if len(keys) > MAX_COLUMNS:
                raise DamagedFileError(
                    f"{name}: its objects have more than {MAX_COLUMNS} different keys, the most that are read: "
                    "put those that differ from row to row into one object, such as properties"
                )
    return bad


def _parse_ndjson(data: bytes, count: int, keys: Iterable[str]) -> pl.DataFrame | None:
    """Return the rows as text, None where a line of them is not a JSON object."""
    schema = dict.fromkeys(keys, pl.String)
    try:
        rows = pl.read_ndjson(data, schema=schema or {"": pl.String})
    except pl.exceptions.PolarsError:
        return None
    if rows.height != count:
        return None
    return rows.rename({name: _own_name(name) for name in schema}) if schema else rows.drop("")


def _broken_json(line: int, text: str) -> Reject:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Reject(line, None, "not_json", f"not a JSON object: {error}", text.encode())
    kind = type(value).__name__
    return Reject(line, None, "not_json", f"a JSON {kind} where an object is expected", text.encode())


def _json_blocks(path: Path, name: str, block_bytes: int) -> Iterator[Block]:
    """Read a JSON array, or the array under "rows" of an object, some elements at a time."""
    start = 1
    for piece in _pieces_of_array(path, name, block_bytes):
        try:
            values = orjson.loads(b"[" + piece + b"]")
        except orjson.JSONDecodeError as error:
            raise DamagedFileError(f"{name}: is not valid JSON, at element {start} or later: {error}") from error
        # Numbers beyond 64 bits are read as floats: such rows go on as they are written.
        written = _elements(piece) if _LONG_NUMBER.search(piece) else None
        for at in range(0, len(values), _MAX_OBJECTS):
            texts = (
                [orjson.dumps(row).decode() for row in values[at : at + _MAX_OBJECTS]]
                if written is None
                else written[at : at + _MAX_OBJECTS]
            )
            yield from _ndjson_blocks(_numbered(pl.Series(texts, dtype=pl.String), start + at), [], name)
        start += len(values)


def _pieces_of_array(path: Path, name: str, block_bytes: int) -> Iterator[bytes]:
    """Yield the elements of the array, some at a time with the commas between them; they are not checked."""
    stream = _Stream(path, name)
    try:
        before, data = _open_array(stream, name)
        is_first = True
        while True:
            comma, end = _find_cuts(data)
            cut = end if end >= 0 else comma
            if cut >= 0:
                if data[:cut].strip():
                    yield data[:cut]
                elif not is_first or end < 0:
                    raise DamagedFileError(f"{name}: is not valid JSON: a comma in its rows stands beside nothing")
                is_first = False
                data = data[cut + 1 :]
            elif len(data) > _MAX_ELEMENT:
                raise DamagedFileError(
                    f"{name}: has a row that is longer than {_MAX_ELEMENT >> 20} MB, the most that is read"
                )
            if end >= 0:
                _check_around(before, data + stream.read(_MAX_ELEMENT), name)
                return
            more = stream.read(block_bytes)
            if not more:
                raise DamagedFileError(f"{name}: is not valid JSON: it ends within its rows")
            data += more
    finally:
        stream.close()


def _open_array(stream: _Stream, name: str) -> tuple[bytes, bytes]:
    """Return the text before the array's bracket, and what was read after it."""
    data = b""
    while len(data) < _MAX_ELEMENT and (more := stream.read(_MAX_ELEMENT - len(data))):
        data += more
    data = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if data.startswith(b"["):
        return b"", data[1:]
    masked, outside = _mask(data)
    for found in _ROWS.finditer(masked):
        before = np.frombuffer(masked, dtype=np.uint8)[: found.start()][outside[: found.start()]]
        depth = np.isin(before, _OPENING).sum() - np.isin(before, _CLOSING).sum()
        if depth == 1 and (not found.start() or outside[found.start() - 1]):
            return data[: found.end() - 1], data[found.end() :]
    if len(data) >= _MAX_ELEMENT:
        raise DamagedFileError(
            f'{name}: is no JSON array, and an object without "rows" in its first {_MAX_ELEMENT >> 20} MB: give '
            "an array of objects, or one object a line"
        )
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DamagedFileError(f"{name}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{name}: is a JSON {type(value).__name__}, not an array of objects")
    keys = ", ".join(key[:40] if key.isprintable() else "?" for key in list(value)[:8])
    raise DamagedFileError(
        f"{name}: is one JSON object (with {keys}), not rows: give a JSON array of objects, "
        'an object with "rows", or one object a line'
    )


def _check_around(before: bytes, after: bytes, name: str) -> None:
    """Raise unless what stands around the array is JSON too."""
    if len(after) > _MAX_ELEMENT:
        raise DamagedFileError(
            f"{name}: more than {_MAX_ELEMENT >> 20} MB follow its rows, the most that are read"
        )
    try:
        value = orjson.loads(before + b"[]" + after)
    except orjson.JSONDecodeError as error:
        raise DamagedFileError(f"{name}: is not valid JSON before or after its rows: {error}") from error
    if isinstance(value, dict) and value["rows"] != []:
        raise DamagedFileError(f'{name}: has "rows" more than once')


def _mask(data: bytes) -> tuple[bytes, "np.ndarray[Any, np.dtype[np.bool_]]"]:
    """Return a text of the same length without what is escaped, and which bytes stand outside of strings."""
    masked = _ESCAPED.sub(b"__", data)
    quotes = np.frombuffer(masked, dtype=np.uint8) == ord('"')
    return masked, np.cumsum(quotes, dtype=np.uint8) % 2 == 0


def _structure(data: bytes) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Return where brackets and commas stand outside of strings, which they are, and the depth after each."""
    masked, outside = _mask(data)
    content = np.frombuffer(masked, dtype=np.uint8)
    places = np.flatnonzero(outside & np.isin(content, _MARKS))
    found = content[places]
    depth = np.cumsum(
        np.isin(found, _OPENING).astype(np.int8) - np.isin(found, _CLOSING).astype(np.int8), dtype=np.int32
    )
    return places, found, depth


def _find_cuts(data: bytes) -> tuple[int, int]:
    """Return where in a text within an array its last own comma and its end stand, -1 where they do not."""
    places, found, depth = _structure(data)
    ends = np.flatnonzero(depth < 0)
    last = int(ends[0]) if len(ends) else len(places)
    commas = np.flatnonzero((found[:last] == ord(",")) & (depth[:last] == 0))
    return (int(places[commas[-1]]) if len(commas) else -1), (int(places[last]) if len(ends) else -1)


_KEY: Final = re.compile(r'"([^"\\]{1,100})"[ \t]*:')


def _elements(piece: bytes) -> list[str]:
    """Return the elements of a part of an array as they are written, each on one line."""
    places, found, depth = _structure(piece)
    cuts = [-1, *places[(found == ord(",")) & (depth == 0)].tolist(), len(piece)]
    # A line end within a string is escaped, so these stand between the tokens.
    return [
        piece[start + 1 : end].replace(b"\n", b" ").replace(b"\r", b" ").strip().decode()
        for start, end in pairwise(cuts)
    ]


_LONG_NUMBER: Final = re.compile(rb"[0-9]{17}")
_ESCAPED: Final = re.compile(rb"\\.", re.DOTALL)
_ROWS: Final = re.compile(rb'"rows"[ \t\r\n]*:[ \t\r\n]*\[')
_OPENING: Final = np.frombuffer(b"[{", dtype=np.uint8)
_CLOSING: Final = np.frombuffer(b"]}", dtype=np.uint8)
_MARKS: Final = np.frombuffer(b"[]{},", dtype=np.uint8)


# --- CSV and TSV ------------------------------------------------------------------------------------------


def _delimited_blocks(reader: _LineReader, head: Head) -> Iterator[Block]:
    columns: tuple[str, ...] = ()
    skip = head.names_separator
    for read in reader:
        lines = read
        if skip and not lines.frame.is_empty():
            lines, skip = lines.without_first(), False
        if not columns:
            if lines.frame.is_empty():
                yield Block(pl.DataFrame(schema={LINE: pl.Int64}), lines.rejects)
                continue
            columns = _header(str(lines.frame[TEXT][0]), head)
            lines = lines.without_first()
        block = _bulk_block(lines, columns, head.separator)
        if block is None:
            block, rest = delimited_block(lines.frame, columns, head.separator, name=head.name, last=lines.last)
            if rest is not None:
                reader.give_back(rest)
        block.rejects += lines.rejects
        yield block


def _bulk_block(lines: _Lines, columns: tuple[str, ...], separator: str) -> Block | None:
    """Parse a block in one go; None where it holds anything but one whole record a line.

    polars fails on a row that is too long, and fills one that is too short with nulls: so none may end with one.
    A quote in an odd place fails or joins lines, which the count of rows shows; but two of them are read as one.
    """
    data = lines.data
    if not data:
        return None
    count = data.count(b"\n") + (not data.endswith(b"\n"))
    if b'""' in data and _whole_records(data, separator) != count:
        return None
    rows = _parse_delimited(data, count, columns, separator)
    if rows is None or rows[columns[-1]].null_count():
        return None
    numbers = pl.int_range(lines.first_line, lines.first_line + count, eager=True, dtype=pl.Int64)
    rows.insert_column(0, numbers.alias(LINE))
    texts: list[Callable[[int], bytes]] = []

    def original(line: int) -> bytes:
        if not texts:
            texts.append(_originals(lines.frame))
        return texts[0](line)

    # An eighth: escaping as JSON and hashes in place of addresses lengthen a text six times at most.
    return Block(rows, [], original, text_is_sound=lines.longest <= MAX_TEXT // 8)


def _whole_records(data: bytes, separator: str) -> int:
    """Count the lines whose quotes, if any, stand around whole fields or doubled within them."""
    plain = re.escape(separator) + r'"\r\n'
    field = rf'(?:"(?:[^"\r\n]|"")*"|[^{plain}]*)'
    record = rf"(?m)^{field}(?:{re.escape(separator)}{field})*\r?$"
    text = data.decode("utf-8", "replace").removesuffix("\n")
    return int(pl.Series([text]).str.count_matches(record)[0])


def _header(text: str, head: Head) -> tuple[str, ...]:
    if text.count(head.separator) >= MAX_COLUMNS:
        raise _too_many_columns(head.name, text.count(head.separator) + 1)
    names = _fields(text, head.separator, strict=False)
    if names is None:
        raise DamagedFileError(f"{head.name}: a quote is opened in the header and not closed")
    columns = tuple((name or "").strip() for name in names)
    columns = tuple(_own_name(name) or f"column_{at}" for at, name in enumerate(columns, 1))
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        shown = ", ".join(printable(name) for name in twice[:_NAMED])
        raise DamagedFileError(f"{head.name}: column {shown} is there more than once in the header")
    return columns


def _too_many_columns(name: str, count: int) -> DamagedFileError:
    return DamagedFileError(
        f"{name}: has {count:,} columns; {MAX_COLUMNS:,} are read at most: leave out what is not needed, or put "
        "it into one column properties as JSON"
    )


def delimited_block(
    frame: pl.DataFrame, columns: tuple[str, ...], separator: str, *, name: str = "", last: bool = True
) -> tuple[Block, pl.DataFrame | None]:
    """Parse lines of CSV; also returns the lines of a record that does not end in this block, if any."""
    schema = dict.fromkeys(columns, pl.String)
    if frame.is_empty():
        return Block(pl.DataFrame(schema={LINE: pl.Int64, **schema})), None
    plain = _plain_records(frame[TEXT], len(columns), separator)
    records, rejects, used, ends = _records(frame, plain, columns, separator, last=last)
    rest = frame.slice(ends) if ends < frame.height else None
    easy = frame.slice(0, ends).filter(plain.slice(0, ends) & ~pl.Series(used[:ends], dtype=pl.Boolean))
    parts = []
    if not easy.is_empty():
        easy_data = "\n".join(easy[TEXT].to_list()).encode()
        rows = _parse_delimited(easy_data, easy.height, columns, separator)
        if rows is None:
            raise DamagedFileError(f"{name}: lines {easy[LINE][0]} to {easy[LINE][-1]} cannot be read as CSV")
        parts.append(rows.insert_column(0, easy[LINE]))
    texts = {line: text for line, text, _ in records}
    if records:
        values = [(line, *fields) for line, _, fields in records]
        parts.append(pl.DataFrame(values, schema={LINE: pl.Int64, **schema}, orient="row"))
    rows = pl.concat(parts).sort(LINE) if parts else pl.DataFrame(schema={LINE: pl.Int64, **schema})
    simple = _originals(frame)
    return Block(rows, rejects, lambda line: texts[line].encode() if line in texts else simple(line)), rest


def _plain_records(texts: pl.Series, width: int, separator: str) -> pl.Series:
    """Say of each line whether it is a record by itself: so many fields, with quotes around whole ones at most."""
    if width > _MANY_COLUMNS:
        # A pattern of so many fields is larger than what is compiled; quotes are left to the slower reader.
        return ~texts.str.contains('"', literal=True) & (
            texts.str.count_matches(re.escape(separator)) == width - 1
        )
    field = rf'(?:[^"{separator}]*|"(?:[^"]|"")*")'
    return texts.str.contains(rf"^{field}(?:{separator}{field}){{{width - 1}}}$")


def _parse_delimited(data: bytes, count: int, columns: tuple[str, ...], separator: str) -> pl.DataFrame | None:
    """Return the rows, None where polars cannot read them or finds other than ``count``."""
    try:
        rows = pl.read_csv(
            data,
            has_header=False,
            schema=dict.fromkeys(columns, pl.String),
            separator=separator,
            encoding="utf8",
        )
    except pl.exceptions.PolarsError:
        return None
    return rows if rows.height == count else None


_Record = tuple[int, str, list[str | None]]


def _records(
    frame: pl.DataFrame, plain: pl.Series, columns: tuple[str, ...], separator: str, *, last: bool
) -> tuple[list[_Record], list[Reject], list[bool], int]:
    """Read the lines that are not plain records: quotes in odd places, records over several lines, ragged rows.

    Returns the records, the rejects, which lines were used here, and how many lines are dealt with: fewer than
    there are where the last record goes on in the next block.
    """
    texts = frame[TEXT].to_list()
    numbers = frame[LINE].to_list()
    odd = (~plain).arg_true().to_list()
    records: list[_Record] = []
    rejects: list[Reject] = []
    used = [False] * len(texts)
    done = 0
    for at in odd:
        if at < done:
            continue
        text, fields, end = _join(texts, numbers, at, separator)
        if fields is None and end >= len(texts) and not last:
            return records, rejects, used, at
        if fields is None or (end > at + 1 and len(fields) != len(columns)):
            # A stray quote must not swallow the good lines after it.
            detail = "a quote is opened on this line, and what follows up to the closing one is no row"
            rejects.append(Reject(numbers[at], None, "unclosed_quote", detail, texts[at].encode()))
            end = at + 1
        elif len(fields) != len(columns):
            detail = f"the row has {len(fields)} fields; the header has {len(columns)}"
            rejects.append(Reject(numbers[at], None, "ragged", detail, text.encode()))
        else:
            records.append((numbers[at], text, fields))
        for index in range(at, end):
            used[index] = True
        done = end
    return records, rejects, used, len(texts)


def _join(
    texts: list[str], numbers: list[int], at: int, separator: str
) -> tuple[str, list[str | None] | None, int]:
    """Join lines from ``at`` on until they are a record: its text, its fields or None, the line after it."""
    size = 0
    end = at
    pieces: list[str] = []
    while end < len(texts) and end - at < MAX_RECORD_LINES and size <= MAX_LINE:
        # Blank lines inside quotes were left out of the frame: put them back by the line numbers.
        if end > at:
            pieces += [""] * (numbers[end] - numbers[end - 1] - 1)
        pieces.append(texts[end])
        size += len(texts[end])
        end += 1
        if end - at > 1 and '"' not in pieces[-1]:
            continue
        text = "\n".join(pieces)
        fields = _fields(text, separator, strict=end - at > 1)
        if fields is not None:
            return text, fields or None, end
    exhausted = end - at < MAX_RECORD_LINES and size <= MAX_LINE
    return "\n".join(pieces), None, len(texts) if exhausted else at + 1


def _fields(text: str, separator: str, *, strict: bool) -> list[str | None] | None:
    """Split a record into its fields; None where a quoted field is not closed.

    Quotes in other places are literal. Where ``strict``, text after a closing quote makes it
    no record: an empty list.
    """
    fields: list[str | None] = []
    at = 0
    while True:
        if text.startswith('"', at):
            end = at + 1
            while True:
                end = text.find('"', end)
                if end < 0:
                    return None
                if not text.startswith('"', end + 1):
                    break
                end += 2
            value = text[at + 1 : end].replace('""', '"')
            after = text.find(separator, end + 1)
            after = len(text) if after < 0 else after
            if strict and after != end + 1:
                return []
            fields.append(value + text[end + 1 : after])
        else:
            after = text.find(separator, at)
            after = len(text) if after < 0 else after
            fields.append(text[at:after] or None)  # as polars reads it
        if after >= len(text):
            return fields
        at = after + 1


# --- Parquet ----------------------------------------------------------------------------------------------


def _parquet_schema(path: Path, name: str) -> dict[str, pl.DataType]:
    try:
        schema = dict(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedFileError(f"{name}: is a damaged Parquet file ({_first_line(error)})") from error
    if len(schema) > MAX_COLUMNS:
        raise _too_many_columns(name, len(schema))
    return schema


def _parquet_blocks(path: Path, name: str) -> Iterator[Block]:
    # By slices: in batches polars holds a whole row group and more, and a file may be one group.
    _refuse_large_groups(path, name)
    start, count = 0, _FIRST_PARQUET_ROWS
    try:
        whole = pl.scan_parquet(path)
        height = int(whole.select(pl.len()).collect().item())
        binary = _binary_kinds(path, name, whole)
        while start < height:
            batch = whole.slice(start, count).collect()
            if batch.is_empty():
                raise DamagedFileError(
                    f"{name}: is a damaged Parquet file (it ends after {start} of {height} rows); "
                    "nothing was loaded"
                )
            fitting = max(1, BLOCK_BYTES // max(1, _width(batch) // batch.height))
            for part in batch.iter_slices(fitting):
                numbers = pl.int_range(start + 1, start + 1 + part.height, eager=True, dtype=pl.Int64).alias(LINE)
                rows = pl.DataFrame(
                    [
                        *(
                            _plain(column, binary.get(column.name)).alias(_own_name(column.name))
                            for column in part
                        ),
                        numbers,
                    ]
                )
                yield Block(rows, [], _row_original(rows))
                start += part.height
            # A slice costs reading its row group again, so it may be some blocks long.
            count = min(4 * fitting, 4 * count, _PARQUET_ROWS)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedFileError(
            f"{name}: is a damaged Parquet file ({_first_line(error)}); nothing was loaded"
        ) from error


def _refuse_large_groups(path: Path, name: str) -> None:
    if path.stat().st_size <= MAX_ROW_GROUP:
        return
    try:
        largest = largest_row_group(path)
    except ValueError as error:
        raise DamagedFileError(f"{name}: is a damaged Parquet file ({error}); nothing was loaded") from error
    if largest > MAX_ROW_GROUP:
        raise DamagedFileError(
            f"{name}: has a row group of {largest >> 20} MB; {MAX_ROW_GROUP >> 20} MB are read at most: write "
            "it with smaller row groups (row_group_size in polars and pyarrow)"
        )


def _width(batch: pl.DataFrame) -> int:
    """Return how many bytes the rows come to as text, about."""
    total = 16 * batch.width * batch.height
    for column in batch:
        if column.dtype == pl.String:
            total += int(column.str.len_bytes().sum())
        elif column.dtype == pl.Binary:
            total += int(column.bin.size().sum())
        elif column.dtype.is_nested():
            total += 10 * int(column.estimated_size())  # they become objects of Python
    return total


def _binary_kinds(path: Path, name: str, whole: pl.LazyFrame) -> dict[str, str]:
    """Say of each column of bytes what they are: uuid or fixed by the file's own types, else text or bytes.

    Old writers left text unmarked: where all of a column is text it is that, and where any of it is not, none is.
    """
    unmarked = [column for column, kind in whole.collect_schema().items() if kind == pl.Binary]
    if not unmarked:
        return {}
    try:
        kinds = binary_columns(path)
    except ValueError as error:
        raise DamagedFileError(f"{name}: is a damaged Parquet file ({error}); nothing was loaded") from error
    for column in unmarked:
        if column not in kinds:
            try:
                whole.select(pl.col(column).cast(pl.String).is_null().sum()).collect()
            except pl.exceptions.ComputeError:
                kinds[column] = "bytes"
    return kinds


def _plain(column: pl.Series, binary: str | None = None) -> pl.Series:
    """Return text, numbers, truth values and times as they are, and everything else as text (nested: as JSON).

    Bytes that are no text are written in hexadecimal digits, UUIDs as such.
    """
    if column.dtype == pl.Binary and binary is not None:
        digits = column.bin.encode("hex")
        if binary != "uuid":
            return digits
        parts = [digits.str.slice(at, length).alias(str(at)) for at, length in _UUID_PARTS]
        return pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator="-")).to_series().alias(column.name)
    if column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Date, pl.Datetime):
        return column
    if column.dtype in (pl.Categorical, pl.Enum, pl.Null):
        return column.cast(pl.String)
    texts = [None if value is None else _as_text(value) for value in column.to_list()]
    return pl.Series(column.name, texts, dtype=pl.String)


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, dict):
        # Every struct of a column has every key: one that a row lacks comes as null.
        value = {key: item for key, item in value.items() if item is not None}
    if isinstance(value, (dict, list)):
        return orjson.dumps(value, default=str).decode()
    return str(value)


def _own_name(name: str) -> str:
    """Return the name of a file's column, another one where we mean something else by it."""
    return f"file{name}" if name in _OUR_NAMES else name


def _row_original(rows: pl.DataFrame) -> Callable[[int], bytes]:
    def original(line: int) -> bytes:
        row = rows.row(line - int(rows[LINE][0]), named=True)
        row.pop(LINE)
        return orjson.dumps(row, default=str)

    return original


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
