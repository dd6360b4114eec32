"""Decodes a stream of whole numbers by the text of the format alone, with no thought of time."""

SYMBOLS, ESCAPE, LEVELS, CONTEXTS = 16, 15, 44, 4
ONE = 1 << 16  # 1 as a mean, and the weights of all contexts together
LEAST = 64  # weight of a context that earned nothing
BY_SUBSET = {3: 0o13, 4: 0o23, 5: 0o45, 6: 0o103, 8: 0o515}
BY_PARITY = {3: 0o4, 4: 0o4, 5: 0o10, 6: 0o24, 8: 0o362}


class Refused(ValueError):
    """Bytes that are no stream."""


class Table:
    """How often symbols a and above occurred, for each a."""

    def __init__(self, shares: list[int]) -> None:
        self.counts = [sum(shares[a:]) * 208 // sum(shares) for a in range(SYMBOLS)]

    def factor(self, weight: int) -> int:
        return (weight * (2**30 // self.counts[0]) + 2**23) >> 24

    def of(self, symbol: int) -> int:
        return self.counts[symbol] - (self.counts[symbol + 1] if symbol < ESCAPE else 0)

    def see(self, symbol: int) -> None:
        self.counts = [n + 16 * (a <= symbol) for a, n in enumerate(self.counts)]
        if self.counts[0] == 12800:
            self.counts = [n - n // 2 for n in self.counts]


def first_table(level: int) -> Table:
    middle = max(1, ((9 + 2 * (level % 4)) << (1 + level // 4)) - 16)
    ratio = middle * ONE // (middle + 230)
    bend = (ONE - ratio) >> 5
    shares = [1 << 14, ratio]
    while len(shares) < SYMBOLS:
        ratio = max(0, ratio - bend)
        shares.append(shares[-1] * ratio >> 16)
    return Table(shares)


def escape_table() -> Table:
    shares = [1 << 16, 36000]
    while len(shares) < SYMBOLS:
        shares.append(shares[-1] * 36000 >> 16)
    return Table(shares)


def level_of(mean: int) -> int:
    """The level of a mean in 1/256."""
    shifted = mean + 16
    length = shifted.bit_length()
    return 4 * length + (shifted >> (length - 3)) % 4 - 20


def slots_of(tables: list[Table], factors: list[int]) -> list[int]:
    """The slots of symbol a are those from number a + 1 of this list up to number a."""
    mixed = [
        sum(t.counts[a] * f for t, f in zip(tables, factors, strict=True)) >> 7
        for a in range(SYMBOLS)
    ]
    slots = [min(m, 32752) + SYMBOLS - a for a, m in enumerate(mixed)]
    return [1 << 15, *slots[1:], 0]


class Mean:
    def __init__(self, value: int) -> None:
        self.value, self.count = value, 0

    def see(self, x: int) -> None:
        self.value += ((x - self.value) * (65536 // (min(self.count, 250) + 5))) >> 16
        self.count += 1


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.x, self.data, self.at = int.from_bytes(data[:8], "little"), data, 8
        if len(data) > 8 and (len(data) % 4 or self.x < 2**31):
            raise Refused("words")
        if self.x >= 2**63 or (0 < len(data) <= 8 and data[-1] == 0):
            raise Refused("state")

    def symbol(self, slots: list[int]) -> int:
        r = self.x % 2**15
        a = next(a for a in range(SYMBOLS) if slots[a + 1] <= r < slots[a])
        self.x = (slots[a] - slots[a + 1]) * (self.x >> 15) + r - slots[a + 1]
        return a

    def bits(self, count: int) -> int:
        taken, self.x = self.x % 2**count, self.x >> count
        if self.x < 2**31 and self.at < len(self.data):
            word = int.from_bytes(self.data[self.at : self.at + 4], "little")
            self.x, self.at = self.x << 32 | word, self.at + 4
        return taken

    def end(self) -> None:
        if self.x or self.at < len(self.data):
            raise Refused("end")


def escaped(source: Bytes, table: Table) -> int:
    """The bucket of a value that escapes."""
    source.bits(0)
    length = source.symbol(slots_of([table], [table.factor(ONE)]))
    table.see(length)
    if length < 15:
        return 14 + 2**length + source.bits(length)
    length += source.bits(4)
    low = source.bits(15)
    return 14 + 2**length + low + (source.bits(length - 15) << 15)


def decode(
    data: bytes, n: int, *, memory: int, row: int, kernel: int = 1, position: int = 0
) -> list[int]:
    """The `n` values of a stream whose first value is number `position` of its tensor.

    Raises:
        Refused: if no encoder wrote `data`.
    """
    if not data or data[0] > 148:
        raise Refused("scale")
    half = memory > 0
    mean = (4 + data[0] % 4) << (data[0] // 4)
    shift = 0
    while shift < 15 and mean >> (shift + half) > 1280:
        shift += 1
    start = min((mean << 8) >> (shift + half), 127 * ONE)
    source = Bytes(data[1:])
    tables = [
        [[first_table(level) for level in range(LEVELS)] for _ in range(2)]
        for _ in range(CONTEXTS)
    ]
    escapes = escape_table()
    weights = learned = [(ONE - CONTEXTS * LEAST) // CONTEXTS] * CONTEXTS
    columns: dict[int, Mean] = {}
    inputs: dict[int, Mean] = {}
    above: dict[int, tuple[int, int]] = {}
    along, left, state = Mean(start), start, 0
    values = []
    for i in range(position, position + n):
        column = i % row
        if column == 0:
            along = Mean(start)
        down = columns.setdefault(column, Mean(start))
        channel = inputs.setdefault(column // kernel, Mean(start))
        two = above.get(column, (start, start))
        u = state % 2
        means = (
            (along.value + left) >> 9,
            (3 * down.value + channel.value) >> 10,
            left >> 8,
            (two[0] + two[1]) >> 9,
        )
        chosen = [tables[j][u][level_of(m)] for j, m in enumerate(means)]
        factors = [t.factor(w + LEAST) for t, w in zip(chosen, weights, strict=True)]
        symbol = source.symbol(slots_of(chosen, factors))
        bucket = escaped(source, escapes) if symbol == ESCAPE else symbol
        bits = source.bits(shift + 1 if symbol else 0)
        index = ((bucket - 1) << shift) + bits // 2 + 1 if symbol else 0
        size = 2 * index - (u and index > 0) if half else index
        if size >= 2**31:
            raise Refused("value")
        values.append(-size if bits % 2 else size)

        earned = [t.of(symbol) * f + 1 for t, f in zip(chosen, factors, strict=True)]
        inverse = ((ONE - CONTEXTS * LEAST) << 24) // sum(earned)
        weights = learned
        learned = [
            w + ((((e * inverse) >> 24) - w) >> 3)
            for w, e in zip(learned, earned, strict=True)
        ]
        for table in chosen:
            table.see(symbol)
        x = min((size << 16) >> (shift + half), 127 * ONE)
        for average in (along, down, channel):
            average.see(x)
        left += (3 * (x - left)) >> 3
        above[column] = (x, two[0])
        if half:
            state = (state >> 1) ^ (u and BY_SUBSET[memory] >> 1)
            state ^= index % 2 and BY_PARITY[memory] >> 1
    source.end()
    return values
