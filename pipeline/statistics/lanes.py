"""Machine instructions that Numba has no words for."""

from typing import TYPE_CHECKING, Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

_PLACE = ir.IntType(64)
_EIGHT = ir.VectorType(ir.DoubleType(), 8)
_unpack = cast("Callable[..., Any]", cgutils.unpack_tuple)


def _add_eight(typing: Any, table: Any, row: Any, values: Any) -> Any:  # noqa: ANN401, ARG001
    """Adds eight numbers to an unsigned row of a table [B, 8] at once; LLVM adds one by one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        added = ir.Constant(_EIGHT, ir.Undefined)
        for k, value in enumerate(_unpack(builder, args[2])):
            added = builder.insert_element(added, value, _PLACE(k))
        address = _address(context, builder, signature, args)
        address = builder.bitcast(address, _EIGHT.as_pointer())
        before = builder.load(address)
        before.align = 8
        builder.store(builder.fadd(before, added), address).align = 8
        return context.get_dummy_value()

    return types.void(table, row, values), generate


def _prefetch(typing: Any, table: Any, row: Any) -> Any:  # noqa: ANN401, ARG001
    """Asks for an unsigned row of a table [N, A] that is read soon, in no order that repeats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        address = builder.bitcast(_address(context, builder, signature, args), pointer)
        builder.call(ask, [address, number(0), number(3), number(1)])  # to read; keep; data
        return context.get_dummy_value()

    return types.void(table, row), generate


def _address(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
    """Where a row begins."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    columns = _unpack(builder, array.shape, 2)[1]
    return builder.gep(array.data, [builder.mul(builder.zext(args[1], _PLACE), columns)])


add_eight = cast("Callable[..., None]", intrinsic(_add_eight))
prefetch = cast("Callable[..., None]", intrinsic(_prefetch))
