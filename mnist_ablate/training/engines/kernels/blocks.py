"""Blocks: many columns of a row at once, and tiles: the same columns of several rows.

A loop over columns that the compiler vectorises still loads and stores its sums every few rows. A block is one value
instead: it stays in registers until the sum is complete, and the optimiser uses it there. LLVM splits it as the
processor needs. A tile is several blocks, one a row, whose sums take each block that is loaded as many times.

Each lane of a block is a sum of its own, so the width of blocks and the height of tiles change no bit. They are chosen
for the processor's registers. Rows are whole narrow blocks: a matrix has a multiple of `COLUMNS` columns, of which
the last may be padding that is always 0.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import overload, register_model

from mnist_ablate.training.engines.compilation import vector_lanes
from mnist_ablate.training.engines.kernels.arithmetic import a_intrinsic, call, constant, splat

COLUMNS = 16
"""Lanes of a narrow block. Rows and columns of all rooms are padded to a multiple."""
_LANES = vector_lanes()
ROWS = 8 if _LANES == COLUMNS else 4
"""Rows of a tile: with wide blocks, half of the registers of the processor."""
WIDE = max(2 * _LANES, COLUMNS)
"""Lanes of a wide block, of which tiles are made."""
LONG = max(8 * _LANES, COLUMNS)
"""Lanes of a long block, for sums of a single row: eight registers add up side by side, as each addition takes time."""
HALF = max(LONG // 2, COLUMNS)
"""Lanes of half a long block, for what long ones leave over."""
PART = 8192 // LONG
"""Rows of a matrix that are multiplied as a part: with the columns of a long block, as many as a first cache holds."""
BAND = 32
"""Rows of weights whose gradients are computed before the first of them is updated."""
SQUARE = max(_LANES, 4)
"""Rows and columns of a square that is transposed in registers, one for each row."""


class BlockType(types.Type):
    """Numba's type of a block of so many numbers of one floating-point type."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        super().__init__(name=f"Block({dtype} x {lanes})")
        self.dtype, self.lanes = dtype, lanes


class TileType(types.Type):
    """Numba's type of a tile: `ROWS` blocks of one type."""

    def __init__(self, block: BlockType) -> None:
        super().__init__(name=f"Tile({block.name})")
        self.block = block


@register_model(BlockType)
class _BlockModel(PrimitiveModel):
    """A block is an LLVM vector."""

    def __init__(self, manager: Any, block: BlockType) -> None:
        vector = ir.VectorType(manager.lookup(block.dtype).get_value_type(), block.lanes)
        super().__init__(manager, block, vector)  # type: ignore[no-untyped-call]


@register_model(TileType)
class _TileModel(PrimitiveModel):
    """A tile is an LLVM array of vectors, which LLVM takes apart."""

    def __init__(self, manager: Any, tile: TileType) -> None:
        vector = manager.lookup(tile.block).get_value_type()
        super().__init__(manager, tile, ir.ArrayType(vector, ROWS))  # type: ignore[no-untyped-call]


# ---- Memory ----


def _number_at(context: Any, builder: Any, matrix_type: Any, matrix: Any, row: Any, column: Any) -> Any:
    """Return a pointer to the number at a row and column of a matrix that lies row by row in memory."""
    made = context.make_array(matrix_type)(context, builder, matrix)
    offset = builder.add(builder.mul(row, builder.extract_value(made.shape, 1)), column)
    return builder.gep(made.data, [offset])


def _block_at(context: Any, builder: Any, block: BlockType, *place: Any) -> Any:
    vector = context.get_value_type(block)
    return builder.bitcast(_number_at(context, builder, *place), vector.as_pointer())


def _aligned(instruction: Any, block: BlockType) -> Any:
    instruction.align = block.dtype.bitwidth // 8
    return instruction


def _loader(lanes: int) -> Any:
    @a_intrinsic
    def load(_typing: Any, matrix: Any, row: Any, column: Any) -> Any:  # noqa: ARG001  # Numba passes types
        """Return the block that begins at a row and column of a matrix."""
        block = BlockType(matrix.dtype, lanes)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = _block_at(context, builder, block, signature.args[0], *arguments)
            return _aligned(builder.load(place), block)

        return block(matrix, types.intp, types.intp), emit

    return load


load_narrow, load_wide, load_half, load_long = (_loader(lanes) for lanes in (COLUMNS, WIDE, HALF, LONG))


@a_intrinsic
def load(_typing: Any, matrix: Any, row: Any, column: Any, like: Any) -> Any:  # noqa: ARG001
    """Return the block of a matrix that has as many lanes as the block `like`."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _block_at(context, builder, like, signature.args[0], *arguments[:3])
        return _aligned(builder.load(place), like)

    return like(matrix, types.intp, types.intp, like), emit


@a_intrinsic
def store(_typing: Any, matrix: Any, row: Any, column: Any, block: Any) -> Any:  # noqa: ARG001
    """Store a block at a row and column of a matrix."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *place, value = arguments
        _aligned(builder.store(value, _block_at(context, builder, block, signature.args[0], *place)), block)
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp, block), emit


# ---- Arithmetic ----


@a_intrinsic
def _spread(_typing: Any, number: Any, like: Any) -> Any:  # noqa: ARG001
    """Return a block like another, filled with one number."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return splat(builder, arguments[0], context.get_value_type(like))

    return like(like.dtype, like), emit


def _arithmetic(operation: Any, instruction: str) -> None:
    """Teach Numba an operation on two blocks, or on a number and a block."""

    @a_intrinsic
    def compute(_typing: Any, a: Any, b: Any) -> Any:  # noqa: ARG001
        def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return a(a, a), emit

    @overload(operation)
    def choose(a, b):  # type: ignore[no-untyped-def]
        if not isinstance(b, BlockType):
            return None
        return (lambda a, b: compute(a, b)) if isinstance(a, BlockType) else (lambda a, b: compute(_spread(a, b), b))


for _operation, _instruction in {
    operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"
}.items():  # fmt: skip
    _arithmetic(_operation, _instruction)


@a_intrinsic
def signs(_typing: Any, a: Any) -> Any:
    """Return 1, -1 or 0 for each lane above, below or at 0."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(a)
        zero, one, minus = (constant(vector, value) for value in (0.0, 1.0, -1.0))
        below = builder.select(builder.fcmp_ordered("<", arguments[0], zero), minus, zero)
        return builder.select(builder.fcmp_ordered(">", arguments[0], zero), one, below)

    return a(a), emit


@a_intrinsic
def is_zero(_typing: Any, a: Any) -> Any:
    """Return whether every lane is 0."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        lanes = builder.fcmp_unordered("!=", arguments[0], constant(context.get_value_type(a), 0.0))
        bits = builder.bitcast(lanes, ir.IntType(a.lanes))
        return builder.icmp_unsigned("==", bits, ir.IntType(a.lanes)(0))

    return types.boolean(a), emit


# ---- Tiles ----


@a_intrinsic
def tile_of(_typing: Any, block: Any) -> Any:
    """Return a tile with the same block in every row."""
    tile = TileType(block)

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        made = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for r in range(ROWS):
            made = builder.insert_value(made, arguments[0], r)
        return made

    return tile(block), emit


def _tile_adder(down: bool) -> Any:
    """Return an intrinsic that takes the factors of a tile's rows from `ROWS` rows, or from `ROWS` columns."""

    @a_intrinsic
    def add(_typing: Any, tile: Any, matrix: Any, row: Any, column: Any, block: Any) -> Any:  # noqa: ARG001
        """Add to each row of the tile the block times its number in the matrix, from a row and column on."""

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            total, array, *place, factor = arguments
            made = context.make_array(matrix)(context, builder, array)
            first = _number_at(context, builder, signature.args[1], array, *place)
            apart = builder.extract_value(made.shape, 1) if down else ir.IntType(64)(1)
            vector = context.get_value_type(block)
            for r in range(ROWS):
                number = builder.load(builder.gep(first, [builder.mul(apart, ir.IntType(64)(r))]))
                row_total = call(builder, "fma", vector, [number, factor, builder.extract_value(total, r)])
                total = builder.insert_value(total, row_total, r)
            return total

        return tile(tile, matrix, types.intp, types.intp, block), emit

    return add


plus_rows, plus_columns = _tile_adder(True), _tile_adder(False)


@a_intrinsic
def store_tile(_typing: Any, matrix: Any, row: Any, column: Any, tile: Any) -> Any:  # noqa: ARG001
    """Store a tile in `ROWS` rows of a matrix, from a row and column on."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, value = arguments
        for r in range(ROWS):
            place = (array, builder.add(row, ir.IntType(64)(r)), column)
            pointer = _block_at(context, builder, tile.block, signature.args[0], *place)
            _aligned(builder.store(builder.extract_value(value, r), pointer), tile.block)
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp, tile), emit


@a_intrinsic
def flip(_typing: Any, matrix: Any, row: Any, column: Any, out: Any) -> Any:  # noqa: ARG001
    """Write the transpose of the square of `SQUARE` rows and columns at (row, column) to (column, row) of `out`.

    Rows r and r + SQUARE / 2 are interleaved to rows 2 r and 2 r + 1, number by number. After log2(SQUARE) times each
    number is at its mirrored place.
    """
    block, half = BlockType(matrix.dtype, SQUARE), SQUARE // 2

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, flipped = arguments
        index = ir.IntType(64)
        rows = [
            _aligned(
                builder.load(
                    _block_at(context, builder, block, signature.args[0], array, builder.add(row, index(r)), column)
                ),
                block,
            )
            for r in range(SQUARE)
        ]
        mask = ir.VectorType(ir.IntType(32), SQUARE)
        low, high = (
            ir.Constant(mask, [half * side + k // 2 + SQUARE * (k % 2) for k in range(SQUARE)]) for side in (0, 1)
        )
        for _ in range(SQUARE.bit_length() - 1):
            rows = [
                builder.shuffle_vector(rows[r], rows[r + half], which) for r in range(half) for which in (low, high)
            ]
        for r, values in enumerate(rows):
            place = (flipped, builder.add(column, index(r)), row)
            _aligned(builder.store(values, _block_at(context, builder, block, signature.args[3], *place)), block)
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp, out), emit
