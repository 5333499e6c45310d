"""DuckDB, for comparison with the builds of audiences. Prints one JSON object."""

import json
import os
import pathlib
import resource
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
elif command == "build":
    result = build(*arguments)
else:
    result = members(arguments[0], int(arguments[1]))
print(json.dumps(result))
