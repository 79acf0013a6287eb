"""Activation: how strongly a query activates an assembly, and what that adds to the scores of its members.

=========== ==========================================================================================================
quantity    formula
=========== ==========================================================================================================
level now   level · 2^(-age / half-life), age since the assembly was last activated (exponential decay)
strength    1 - 1 / (2 + (score - threshold) + priming · level now), for a composite whose score reaches the threshold
boost       weight · strength
score       base score + boost
=========== ==========================================================================================================

Strength is 1/2 at the threshold and grows with score and level towards 1, whatever range the metric's scores have. So
a boost is between half the weight and the weight, and a member of several activated assemblies gets the largest boost.
No score is ever lowered, and the members of one assembly keep their order. Nothing runs in the background: the decayed
level is computed when it is read.
"""

import math
from dataclasses import dataclass
from datetime import timedelta

from memstore.errors import InvalidError, short_repr
from memstore.validation.values import check_count, check_flag, check_number

MAX_ACTIVATED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyBoost:
    """How a search of memories uses assemblies.

    Attributes:
        threshold: the lowest score of a composite against the query that activates its assembly, in the scores of the
            store's metric: 0.5 is an angle of 60 degrees under cosine and a distance of 1 under l2. Inner products
            have no common scale; choose a threshold that suits the vectors.
        limit: how many assemblies are activated at most, nearest first, 1 to 1,000.
        weight: the largest possible boost, above 0, in units of the score.
        priming: how much of the stored activation level is added to the strength, 0 or more. 0 ranks by the query
            alone.
        max_age: seconds, or a timedelta: older composites give no boost. None allows any age.
        record: whether the search records the activated assemblies as `assemblies.activate` does, each with its
            strength. That takes the writer lock; without it a search writes nothing.
    """

    threshold: float = 0.5
    limit: int = 5
    weight: float = 0.25
    priming: float = 0.0
    max_age: float | timedelta | None = None
    record: bool = False

    def __post_init__(self) -> None:
        checked = {
            "threshold": _finite("threshold", self.threshold, -math.inf),
            "limit": check_count("limit of AssemblyBoost", self.limit, 1, MAX_ACTIVATED),
            "weight": _finite("weight", self.weight, 0),
            "priming": _finite("priming", self.priming, 0),
        }
        if checked["weight"] == 0:
            raise InvalidError(
                "Invalid weight: expected a number above 0, found 0. For a search without boosts, leave out boost="
            )
        if self.max_age is not None and not isinstance(self.max_age, timedelta):
            checked["max_age"] = _finite("max_age", self.max_age, 0)
        check_flag("record", self.record)
        for name, value in checked.items():  # plain numbers, whatever subclass the caller gave
            object.__setattr__(self, name, value)

    def strength(self, score: float, level: float) -> float:
        """The activation strength of an assembly with this *score* and level; the score reaches the threshold."""
        return 1.0 - 1.0 / (2.0 + (score - self.threshold) + self.priming * level)

    def boost(self, score: float, level: float) -> float:
        """What the members of an assembly with this *score* and level gain."""
        return self.weight * self.strength(score, level)

    def too_old(self, age: timedelta | None) -> bool:
        """Whether a composite of this *age* exceeds `max_age`; an unknown age does."""
        if self.max_age is None:
            return False
        seconds = self.max_age.total_seconds() if isinstance(self.max_age, timedelta) else self.max_age
        return age is None or age.total_seconds() > seconds


def check_boost(value: object) -> AssemblyBoost | None:
    """*value* as an `AssemblyBoost` or None, else `InvalidError`."""
    if value is None or isinstance(value, AssemblyBoost):
        return value
    raise InvalidError(
        f"Invalid boost: expected an AssemblyBoost, such as AssemblyBoost(threshold=0.6), found {short_repr(value)}"
    )


def check_half_life(value: object) -> float:
    """*value* as a half-life in seconds, else `InvalidError`."""
    number = check_number("activation_half_life", value)
    if not 0 < number < math.inf:
        raise InvalidError(f"Invalid activation_half_life: expected a finite number of seconds above 0, found {number}")
    return number


def _finite(name: str, value: object, least: float) -> float:
    number = check_number(name, value)
    if not least <= number or math.isinf(number):
        bound = "" if least == -math.inf else f" of {least:g} or more"
        raise InvalidError(f"Invalid {name}: expected a finite number{bound}, found {number}")
    return number
