"""DuckDB, for comparison with the builds of audiences. Prints one JSON object."""

import json
import os
import pathlib
import resource
import shutil
import sys
import time

import duckdb

data = pathlib.Path(sys.argv[1])
db = duckdb.connect()


def generate(rows):
    """Writes orders to ten files: customers as text, amounts from 0.00 to 99.99, days of one year."""
    folder = data / "lake" / "orders.incomplete"
    folder.mkdir(parents=True, exist_ok=True)
    customers = max(1, rows * 6 // 10)
    step = -(-rows // 10)
    for number, start in enumerate(range(0, rows, step)):
        db.execute(
            f"""COPY (
                SELECT 'u' || lpad((hash(i) % {customers})::VARCHAR, 12, '0') AS customer,
                       ((hash(i + 1000000007) % 10000)::DECIMAL(10, 0) / 100)::DECIMAL(10, 2) AS amount,
                       DATE '2025-01-01' + (hash(i + 2000000011) % 365)::INTEGER AS day
                FROM range({start}, {min(rows, start + step)}) t(i)
            ) TO '{folder}/{number}.parquet' (FORMAT parquet)"""
        )
    folder.rename(data / "lake" / "orders")
    return {"rows": rows}


def build(name, sql, memory):
    """Writes the distinct keys of a model as durable Parquet."""
    db.execute(f"SET memory_limit = '{memory}'")
    db.execute("SET preserve_insertion_order = false")
    target = data / f"duckdb-{name}.parquet"
    started = time.monotonic()
    db.execute(f"COPY (SELECT DISTINCT customer FROM ({sql})) TO '{target}' (FORMAT parquet)")
    with open(target, "rb") as file:
        os.fsync(file.fileno())
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    members = db.execute(f"SELECT count(*) FROM '{target}'").fetchone()[0]
    return {"seconds": seconds, "peak_kib": peak, "members": members}


def generate_records(rows):
    """Writes records to one CSV file: customers, e-mail addresses, times of ten days, amounts, ages, booleans."""
    target = data / f"records-{rows}.csv"
    db.execute(
        f"""COPY (
            SELECT 'c' || lpad(i::VARCHAR, 12, '0') AS customer,
                   'User.' || (hash(i) % 100000000)::VARCHAR || '@Example.com' AS email,
                   strftime(TIMESTAMP '2026-11-15' + to_seconds((hash(i + 1000000007) % 864000)::BIGINT),
                            '%Y-%m-%dT%H:%M:%SZ') AS seen,
                   ((hash(i + 2000000011) % 10000)::DECIMAL(10, 0) / 100)::DECIMAL(10, 2) AS amount,
                   18 + (hash(i + 3000000019) % 70)::INTEGER AS age,
                   hash(i + 4000000007) % 2 = 0 AS newsletter
            FROM range({rows}) t(i)
        ) TO '{target}.incomplete' (FORMAT csv, HEADER)"""
    )
    os.rename(f"{target}.incomplete", target)
    return {"rows": rows}


def ingest(rows, memory):
    """Copies the records to Parquet by day, sorted by the hash of the address."""
    db.execute(f"SET memory_limit = '{memory}'")
    target = data / "duckdb-ingest"
    shutil.rmtree(target, ignore_errors=True)
    started = time.monotonic()
    db.execute(
        f"""COPY (
            SELECT customer, sha256(lower(trim(email))) AS email, seen, amount, age, newsletter, seen::DATE AS day
            FROM read_csv('{data}/records-{rows}.csv', header = true, columns = {{
                'customer': 'VARCHAR', 'email': 'VARCHAR', 'seen': 'TIMESTAMP', 'amount': 'DECIMAL(10, 2)',
                'age': 'BIGINT', 'newsletter': 'BOOLEAN'}})
            ORDER BY day, email
        ) TO '{target}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day))"""
    )
    for file in target.rglob("*.parquet"):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
    seconds = time.monotonic() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    count = db.execute(f"SELECT count(*) FROM '{target}/**/*.parquet'").fetchone()[0]
    return {
        "rows": count,
        "seconds": seconds,
        "rows_per_minute": count / seconds * 60,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_kib": usage.ru_maxrss,
    }


def generate_template(rows, audiences):
    """Writes sales to ten files, and a table of segments: each a category with the least sum of a member, in cents."""
    folder = data / "lake" / "sales.incomplete"
    folder.mkdir(parents=True, exist_ok=True)
    segments = data / "lake" / "segments"
    segments.mkdir(exist_ok=True)
    db.execute(
        f"""COPY (
            SELECT 'c' || lpad(i::VARCHAR, 6, '0') AS category, (2000 + i * 7 % 7000)::BIGINT AS minimum
            FROM range({audiences}) t(i)
        ) TO '{segments}/segments.parquet' (FORMAT parquet)"""
    )
    customers = max(1, rows * 6 // 10)
    step = -(-rows // 10)
    for number, start in enumerate(range(0, rows, step)):
        db.execute(
            f"""COPY (
                SELECT 'u' || lpad((hash(i) % {customers})::VARCHAR, 12, '0') AS customer,
                       'c' || lpad((hash(i + 3000000019) % {audiences})::VARCHAR, 6, '0') AS category,
                       (hash(i + 1000000007) % 10000)::BIGINT AS amount
                FROM range({start}, {min(rows, start + step)}) t(i)
            ) TO '{folder}/{number}.parquet' (FORMAT parquet)"""
        )
    folder.rename(data / "lake" / "sales")
    return {"rows": rows, "audiences": audiences}


def template_members(categories):
    """The members of some audiences of the template, by category."""
    found = {category: [] for category in categories}
    db.execute("CREATE TEMP TABLE wanted (category VARCHAR)")
    db.executemany("INSERT INTO wanted VALUES (?)", [(category,) for category in categories])
    db.execute(
        f"""SELECT sales.category, sales.customer
            FROM '{data}/lake/sales/*.parquet' sales
            JOIN '{data}/lake/segments/segments.parquet' segments ON segments.category = sales.category
            WHERE sales.category IN (SELECT category FROM wanted)
            GROUP BY sales.category, sales.customer
            HAVING sum(sales.amount) >= max(segments.minimum)"""
    )
    for category, customer in db.fetchall():
        found[category].append(customer)
    return found


def members(name, limit):
    """Writes members as Redis commands, for `redis-cli --pipe`."""
    target = data / f"redis-{name}.txt"
    db.execute(f"SELECT customer FROM '{data}/duckdb-{name}.parquet' LIMIT {limit}")
    count = 0
    with open(target, "w", encoding="ascii") as file:
        while chunk := db.fetchmany(1000):
            keys = [key for (key,) in chunk]
            count += len(keys)
            parts = [f"*{len(keys) + 2}\r\n$4\r\nSADD\r\n$8\r\naudience\r\n"]
            parts.extend(f"${len(key)}\r\n{key}\r\n" for key in keys)
            file.write("".join(parts))
    return {"members": count, "file": str(target)}


command, *arguments = sys.argv[2:]
if command == "generate":
    result = generate(int(arguments[0]))
elif command == "generate-records":
    result = generate_records(int(arguments[0]))
elif command == "generate-template":
    result = generate_template(int(arguments[0]), int(arguments[1]))
elif command == "template-members":
    result = template_members(arguments)
elif command == "ingest":
    result = ingest(int(arguments[0]), arguments[1])
elif command == "build":
    result = build(*arguments)
else:
    result = members(arguments[0], int(arguments[1]))
print(json.dumps(result))
