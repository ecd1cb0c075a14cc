"""Which conditions may run on hidden rows, as a table to read and to argue with."""

import pytest
from postgast import pg_query_pb2 as pb

from chartgate.sql.admit import admit
from chartgate.sql.safe import family, is_safe
from chartgate.sql.tree import expression, names

TYPES = {
    "i": "integer", "j": "bigint", "t": "text", "v": "character varying(20)", "c": "character(3)",
    "d": "date", "ts": "timestamp without time zone", "tz": "timestamp with time zone",
    "u": "uuid", "b": "boolean", "f": "double precision", "n": "numeric(8,2)", "a": "integer[]",
    "js": "jsonb",
}  # fmt: skip

SAFE = """
i = 5
5 = i
i = $1
i <> j
i < 5 AND t > 'x' OR NOT b
i IN (1, 2, $3)
i NOT IN (1, 2)
i BETWEEN 1 AND j
i = ANY ('{1,2}')
i = ANY ($1)
i = ANY (ARRAY[1, 2])
i = ANY ('{1}'::int[])
i = $1::int
t = $1::text
t = v
t LIKE 'x%'
v NOT LIKE '%y'
t IS NULL
n IS NOT NULL
i IS DISTINCT FROM 5
b
b IS NOT TRUE
f >= 1.5
f = 2
d >= '2026-01-01'
d >= DATE '2026-01-01'
ts < tz
tz > now()
tz > now() - interval '7 days'
d = CURRENT_DATE
tz > CURRENT_TIMESTAMP - interval '24 hours'
i::text = '5'
u = 'f0000000-0000-0000-0000-000000000000'
coalesce(t, 'x') = 'x'
CASE WHEN i > 5 THEN t ELSE 'x' END IS NULL
CASE i WHEN 1 THEN 'x' END IS NULL
date_trunc('month', ts) = '2026-01-01'
sum(i)
count(*)
max(n)
row_number() OVER (PARTITION BY n ORDER BY i)
""".strip().splitlines()

UNSAFE = """
n = 5
n > i
i = 5.5
i = 5::numeric
i + 1 = 5
9 / i > 1
i / 0 = 1
t || 'x' = 'y'
lower(t) = 'x'
length(t) > 5
substring(t, 1, -1) = 'x'
t::int = 5
n::text = '5'
d::timestamp = '2026-01-01'
t LIKE v
t LIKE 'x\\'
t LIKE 'x!' ESCAPE '!'
t LIKE $1
t ILIKE 'x%'
t SIMILAR TO 'x'
t ~ '^x'
i LIKE 'x'
a = '{1}'
a && '{1}'
js -> 'x' = '1'
i = ANY (a)
i = ANY ($1::int[])
i = a[1]
ARRAY[i, coalesce(i, 9 / i)] IS NULL
d = $1::date
tz = $1::timestamptz
tz > now() - interval '99999999 years'
tz > now() - interval '9999 years'
coalesce(d, now() - interval '9999 years') > '2020-01-01'
tz > now() - $1::interval
tz > now() - interval '1 day' - interval '1 day'
coalesce(n, 1) = 1
coalesce(i, n) IS NULL
CASE WHEN 9 / i > 1 THEN 1 END IS NULL
CASE WHEN b THEN i ELSE n END IS NULL
greatest(i, 1) = 1
(i, t) = (1, 'x')
i IN (1, n)
i BETWEEN 1 AND 9 / i
date_trunc(t, ts) IS NULL
date_trunc('nonsense', ts) IS NULL
extract(hour from d) = 1
sum(9 / i)
random() > 0.5
unknown = 5
""".strip().splitlines()


def judged(text: str) -> bool:
    node = pb.Node()
    node.CopyFrom(expression(text))
    admit(node)
    return is_safe(node, lambda ref: TYPES.get(names(ref.fields)[-1]))


@pytest.mark.parametrize("text", SAFE)
def test_safe(text: str) -> None:
    assert judged(text)


@pytest.mark.parametrize("text", UNSAFE)
def test_unsafe(text: str) -> None:
    assert not judged(text)


def test_lengths_do_not_change_a_type_s_family() -> None:
    assert family("character varying(20)") == family("text") == "text"
    assert family("timestamp(3) with time zone") == "time"
    assert family("numeric(8,2)") is None
    assert family("integer[]") is None
    assert family(None) is None
