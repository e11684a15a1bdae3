"""Customers in a process of their own: ``engine_customers.py SOCKET CUSTOMERS QUESTIONS``.

Prints one JSON document: statuses, and the 50th and 95th percentile of the seconds an answer took.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import Counter

import httpx

SUBJECTS = ("invoices", "passwords", "exports", "devices", "refunds", "holidays", "errors")


async def main(path: str, customers: int, questions: int) -> None:
    seconds: list[float] = []
    statuses: Counter[int] = Counter()
    transport = httpx.AsyncHTTPTransport(uds=path, trust_env=False)
    async with httpx.AsyncClient(
        base_url="http://engine", transport=transport, timeout=120, trust_env=False
    ) as client:

        async def customer(number: int) -> None:
            for question in range(questions):
                subject = SUBJECTS[(number + question) % len(SUBJECTS)]
                text = f"Customer {number} asks about {subject}. Answer in one sentence."
                body = {
                    "messages": [{"role": "user", "content": text}],
                    "max_tokens": 24,
                    "temperature": 0,
                }
                started = time.perf_counter()
                answer = await client.post("/v1/chat/completions", json=body)
                statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    seconds.append(time.perf_counter() - started)
                else:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))

        await asyncio.gather(*(customer(number) for number in range(customers)))
    cuts = statistics.quantiles(seconds, n=20)
    document = {"statuses": statuses, "p50": round(cuts[9], 3), "p95": round(cuts[18], 3)}
    sys.stdout.write(json.dumps(document))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
