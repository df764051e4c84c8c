"""The Python part of workload.sh: `data` writes test data to standard output, `arithmetic` prints results."""
import cmath
import decimal
import fractions
import hashlib
import json
import math
import random
import struct
import sys


def data():
    """192 KiB that neither compress away nor resist: text-like, numeric and random stretches."""
    numbers = random.Random(2026)
    words = [bytes(numbers.randrange(97, 123) for _ in range(numbers.randrange(2, 9))) for _ in range(500)]
    text = b" ".join(words[min(499, int(numbers.expovariate(0.02)))] for _ in range(12000))
    table = b"".join(struct.pack("<Id", i * i % 65521, math.sin(i / 10)) for i in range(6000))
    noise = numbers.randbytes(48 * 1024)
    sys.stdout.buffer.write((text + table + noise)[:192 * 1024])


def arithmetic():
    print(pow(3, 100003, 2**521 - 1))
    print(hashlib.sha256(str(math.factorial(700)).encode()).hexdigest())
    print(math.isqrt(10**301), math.comb(400, 200) % 1000000007)
    values = [math.sin(i) * math.exp(-i / 50) + math.sqrt(i) / math.log(i + 2) for i in range(3000)]
    print(math.fsum(values).hex(), sum(values).hex(), max(values).hex())
    print([f(0.7).hex() for f in (math.tan, math.atan, math.cosh, math.gamma, math.erf, math.log1p, math.cbrt)])
    print(cmath.exp(1j * cmath.pi / 7) ** 13)
    decimal.getcontext().prec = 60
    print(decimal.Decimal(2).sqrt() / decimal.Decimal(7).ln())
    print(sum((fractions.Fraction(1, n) for n in range(1, 60)), fractions.Fraction()))
    print(json.dumps({"a": [1, 2.5, None, True], "b": {"c": "\u00e9"}}, sort_keys=True), 7.1 // 0.3, -7 % 3, 2.0**-1074)
    numbers = random.Random(1)
    sample = [numbers.gauss(0, 1) for _ in range(2000)]
    print(math.fsum(sample).hex(), sorted(range(20), key=lambda i: sample[i]))
    print(struct.unpack("<f", struct.pack("<f", math.pi)), float("1e308") * 10, math.nan != math.nan)


{"data": data, "arithmetic": arithmetic}[sys.argv[1]]()
