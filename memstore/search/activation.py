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

The threshold is relative to the query unless the caller gives one. Embedders differ in the scores of texts that have
nothing in common, and composites score higher than single memories, so no fixed number suits two embedders.

=========== ==========================================================================================================
assemblies  threshold
=========== ==========================================================================================================
5 or more   m + z(n) · s, of mean m and standard deviation s of the scores of all n composites, where z(n) is the
            expected highest of n values of a normal distribution: an assembly is activated if it stands out from the
            others more than the nearest of n random ones would
fewer       m + 0.7 · (b - m), of mean m and highest b of the scores of the memories: too few composites have no
            distribution, so an assembly is activated if it is about as near as the nearest memory
=========== ==========================================================================================================

`z(n) = Φ⁻¹((n - 3/8) / (n + 1/4))`: G. Blom, Statistical Estimates and Transformed Beta-Variables, 1958.
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist

from memstore.errors import InvalidError, short_repr
from memstore.validation.values import check_count, check_flag, check_number
from memstore.vectors.arrays import Doubles

MAX_ACTIVATED = 1_000

FEW_ASSEMBLIES = 5
"""Assemblies from which on their composites have a distribution of scores."""

_NEARNESS = 0.7  # of the way from the average to the nearest memory
_ROUNDING = 1e-6  # of float32 composites: equal vectors must reach each other's score


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyBoost:
    """How a search of memories uses assemblies.

    Attributes:
        threshold: the lowest score of a composite against the query that activates its assembly, in the scores of the
            store's metric: 0.5 is an angle of 60 degrees under cosine and a distance of 1 under l2. None for one that
            is relative to the scores of the query, by the formula of this module; `hits.plan.nearest_assembly` has it.
        limit: how many assemblies are activated at most, nearest first, 1 to 1,000.
        weight: the largest possible boost, above 0, in units of the score.
        priming: how much of the stored activation level is added to the strength, 0 or more. 0 ranks by the query
            alone.
        max_age: seconds, or a timedelta: older composites give no boost. None allows any age.
        record: whether the search records the activated assemblies as `assemblies.activate` does, each with its
            strength. That takes the writer lock; without it a search writes nothing.
    """

    threshold: float | None = None
    limit: int = 5
    weight: float = 0.1
    priming: float = 0.0
    max_age: float | timedelta | None = None
    record: bool = False

    def __post_init__(self) -> None:
        checked = {
            "limit": check_count("limit of AssemblyBoost", self.limit, 1, MAX_ACTIVATED),
            "weight": _finite("weight", self.weight, 0),
            "priming": _finite("priming", self.priming, 0),
        }
        if self.threshold is not None:
            checked["threshold"] = _finite("threshold", self.threshold, -math.inf)
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
        """The activation strength of an assembly with this *score* and level; the score reaches the threshold.

        Without a threshold, that of a score that just reaches it.
        """
        excess = 0.0 if self.threshold is None else score - self.threshold
        return 1.0 - 1.0 / (2.0 + excess + self.priming * level)

    def boost(self, score: float, level: float) -> float:
        """What the members of an assembly with this *score* and level gain."""
        return self.weight * self.strength(score, level)

    def too_old(self, age: timedelta | None) -> bool:
        """Whether a composite of this *age* exceeds `max_age`; an unknown age does."""
        if self.max_age is None:
            return False
        seconds = self.max_age.total_seconds() if isinstance(self.max_age, timedelta) else self.max_age
        return age is None or age.total_seconds() > seconds


def standout_threshold(scores: Doubles, count: int) -> float:
    """The threshold for *count* composites, 5 or more, of which *scores* are a sample: float64, shape (n,)."""
    highest = NormalDist().inv_cdf((count - 0.375) / (count + 0.25))
    return _rounded_down(float(scores.mean() + highest * scores.std()))


def nearness_threshold(scores: Doubles, best: float) -> float:
    """The threshold for fewer composites: *scores* are of a sample of the memories, *best* is the highest of all."""
    mean = float(scores.mean())
    return _rounded_down(mean + _NEARNESS * (max(best, float(scores.max())) - mean))


def _rounded_down(threshold: float) -> float:
    return threshold - _ROUNDING * max(1.0, abs(threshold))


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
