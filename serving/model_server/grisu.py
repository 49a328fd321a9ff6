"""The decimal digits of a double as RapidJSON finds them: Grisu2.

Florian Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers" (PLDI 2010), section 5.
The digits always read back the same, but one in a thousand is not the nearest or the shortest that does: 2**64 ends in
...553, not in ...552. Errors quote numbers, so the difference shows.
"""

from __future__ import annotations

import math

_MANTISSA_BITS = 52
_HIDDEN_BIT = 1 << _MANTISSA_BITS
_BITS = 64
_FIRST_POWER, _POWER_STEP = -348, 8
"""Cached powers of ten: every eighth from 1e-348."""
_LN2_BY_LN10 = 0.30102999566398114
_LAST_ROUNDED = 9
"""From this digit after the point on RapidJSON leaves out the last step, the one that looks for the nearest."""


def shortened(value: float) -> tuple[str, int]:
    """Return digits and exponent of a positive, finite double: value = digits * 10**exponent; ("0", 0) for zero."""
    if not value:
        return "0", 0
    significand, exponent = _parts(value)
    plus, plus_exponent = _normalized(2 * significand + 1, exponent - 1)
    if significand == _HIDDEN_BIT:
        minus, minus_exponent = 4 * significand - 1, exponent - 2
    else:
        minus, minus_exponent = 2 * significand - 1, exponent - 1
    minus <<= minus_exponent - plus_exponent
    power, power_exponent, decimal = _cached_power(plus_exponent)
    own, _ = _normalized(significand, exponent)
    high = _product(plus, power) - 1
    low = _product(minus, power) + 1
    digits, shift = _digits(_product(own, power), high, high - low, plus_exponent + power_exponent + _BITS)
    return digits, decimal + shift


def _parts(value: float) -> tuple[int, int]:
    fraction, exponent = math.frexp(value)
    exponent -= _MANTISSA_BITS + 1
    lowest = -1074
    if exponent < lowest:
        return int(math.ldexp(value, -lowest)), lowest
    return int(math.ldexp(fraction, _MANTISSA_BITS + 1)), exponent


def _normalized(significand: int, exponent: int) -> tuple[int, int]:
    shift = _BITS - significand.bit_length()
    return significand << shift, exponent - shift


def _product(one: int, other: int) -> int:
    return (one * other + (1 << (_BITS - 1))) >> _BITS


def _cached_power(exponent: int) -> tuple[int, int, int]:
    """Return significand and binary exponent of a power of ten near 2**-exponent, and minus its decimal exponent."""
    estimate = (-61 - exponent) * _LN2_BY_LN10 + 347
    decimal = _FIRST_POWER + ((math.ceil(estimate) >> 3) + 1) * _POWER_STEP
    if decimal >= 0:
        number = 10**decimal
        shift = number.bit_length() - _BITS
        significand = number << -shift if shift <= 0 else _rounded(number, 1 << shift)
    else:
        divisor = 10**-decimal
        shift = -(divisor.bit_length() + _BITS - 1)
        significand = _rounded(1 << -shift, divisor)
    if significand >> _BITS:
        significand, shift = significand >> 1, shift + 1
    return significand, shift, -decimal


def _rounded(number: int, divisor: int) -> int:
    return (2 * number + divisor) // (2 * divisor)


def _digits(own: int, high: int, delta: int, exponent: int) -> tuple[str, int]:
    one = 1 << -exponent
    distance = high - own
    whole, rest = high >> -exponent, high & (one - 1)
    digits: list[int] = []
    for kappa in range(len(str(whole)) - 1, -1, -1):
        digit, whole = divmod(whole, 10**kappa)
        if digit or digits:
            digits.append(digit)
        left = (whole << -exponent) + rest
        if left <= delta:
            return _nearer(digits, delta, left, 10**kappa << -exponent, distance), kappa
    kappa = 0
    while True:
        rest, delta, kappa = rest * 10, delta * 10, kappa - 1
        digit = rest >> -exponent
        if digit or digits:
            digits.append(digit)
        rest &= one - 1
        if rest < delta:
            scaled = distance * 10**-kappa if -kappa < _LAST_ROUNDED else 0
            return _nearer(digits, delta, rest, one, scaled), kappa


def _nearer(digits: list[int], delta: int, rest: int, unit: int, distance: int) -> str:
    """Lower the last digit while that brings the number nearer to the value."""
    while (
        rest < distance
        and delta - rest >= unit
        and (rest + unit < distance or distance - rest > rest + unit - distance)
    ):
        digits[-1] -= 1
        rest += unit
    return "".join(map(str, digits))
