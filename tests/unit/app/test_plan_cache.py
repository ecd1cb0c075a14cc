"""Plans are kept for the text and the entitlement they were made for, and no longer."""

from chartgate.app.plan_cache import MAX_TEXT, MAX_TEXTS, PlanCache


def counted(made: list[int]) -> int:
    made.append(len(made))
    return made[-1]


def test_the_same_text_is_parsed_and_planned_once() -> None:
    cache: PlanCache[int] = PlanCache()
    made: list[int] = []
    for _ in range(3):
        (statement,) = cache.statements("SELECT 1")
        assert cache.plan(statement, "one", lambda: counted(made)) == 0
    assert made == [0]


def test_another_entitlement_is_planned_anew() -> None:
    cache: PlanCache[int] = PlanCache()
    made: list[int] = []
    (statement,) = cache.statements("SELECT 1")
    first, second = object(), object()
    assert cache.plan(statement, first, lambda: counted(made)) == 0
    assert cache.plan(statement, second, lambda: counted(made)) == 1
    assert cache.plan(statement, first, lambda: counted(made)) == 2


def test_statements_of_one_text_have_plans_of_their_own() -> None:
    cache: PlanCache[int] = PlanCache()
    made: list[int] = []
    one, other = cache.statements("SELECT 1; SELECT 1")
    owner = object()
    assert cache.plan(one, owner, lambda: counted(made)) == 0
    assert cache.plan(other, owner, lambda: counted(made)) == 1
    assert cache.plan(one, owner, lambda: counted(made)) == 0


def test_the_oldest_text_is_forgotten_first() -> None:
    cache: PlanCache[int] = PlanCache()
    kept = cache.statements("SELECT 0")
    for number in range(1, MAX_TEXTS):
        cache.statements(f"SELECT {number}")
    assert cache.statements("SELECT 0") is kept
    cache.statements("SELECT 'one more'")
    assert cache.statements("SELECT 0") is kept
    for number in range(MAX_TEXTS):
        cache.statements(f"SELECT {number} + 1")
    assert cache.statements("SELECT 0") is not kept


def test_a_long_text_is_not_kept() -> None:
    cache: PlanCache[int] = PlanCache()
    text = f"SELECT '{'x' * MAX_TEXT}'"
    made: list[int] = []
    (statement,) = cache.statements(text)
    for _ in range(2):
        cache.plan(statement, "one", lambda: counted(made))
    assert made == [0, 1]
