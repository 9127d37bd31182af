"""Who kills: at random moments, every kind of process in its turn, seeded."""

import random
import time
from collections import Counter
from dataclasses import dataclass

import psutil

from tests.proofs.processes import kill
from tests.proofs.theatre import SERVER_COMMAND, Theatre, command_of

OUTAGE_S = 5.0
"""How long the store is out altogether, once."""

SHARES = {"decode": 0.3, "prepare": 0.2, "pool process": 0.2, "worker": 0.15, "transcribe": 0.1}
"""Share of the kills by what is killed, so that every kind has its turn; the server is killed once, the rest are
decoders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One SIGKILL."""

    after_s: float
    """From the beginning of the disturbed run, s."""
    victim: str
    process_id: int


class Killer:
    """Kills at random moments until it has killed enough."""

    def __init__(self, theatre: Theatre, *, seed: int, kills: int, pause_s: float) -> None:
        self._theatre, self._pause_s = theatre, pause_s
        self._random = random.Random(seed)
        self._started = self._next = time.monotonic()
        self._left = Counter({kind: round(share * kills) for kind, share in SHARES.items()})
        self._left["decode"] += kills - 1 - self._left.total()
        self._server_at = self._random.randrange(kills // 3, 2 * kills // 3 + 1)
        self.kills: list[Kill] = []
        self._draw()

    @property
    def is_done(self) -> bool:
        """Whether it has killed enough."""
        return not self._left.total()

    def turn(self) -> None:
        """Kill someone if it is time."""
        if self.is_done or time.monotonic() < self._next:
            return
        victims = self._victims()
        if len(self.kills) == self._server_at:
            self._kill("server", self._random.choice(victims["server"]))
            self._theatre.inject(outage_s=OUTAGE_S)
        elif kinds := [kind for kind, left in self._left.items() if left and victims[kind]]:
            kind = self._random.choice(kinds)
            self._left[kind] -= self._kill(kind, self._random.choice(victims[kind]))
        self._draw()

    def _kill(self, kind: str, victim: psutil.Process) -> bool:
        is_killed = kill(victim.pid)
        if is_killed:
            after_s = round(time.monotonic() - self._started, 1)
            self.kills.append(Kill(after_s=after_s, victim=kind, process_id=victim.pid))
            print(f"{after_s:7.1f} s  kill {len(self.kills)}: {kind}", flush=True)
        return is_killed

    def _draw(self) -> None:
        self._next = time.monotonic() + self._random.expovariate(1 / self._pause_s)

    def _victims(self) -> dict[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in (*SHARES, "server", "")}
        for process in self._theatre.company.members():
            found[kind_of(process)].append(process)
        return found


def kind_of(process: psutil.Process) -> str:
    """Name what a process is; "" for what is left alone."""
    command = command_of(process)
    if SERVER_COMMAND in command:
        return "server"
    if "prefect worker start" in command:
        return "worker"
    if "multiprocessing.spawn" in command or "multiprocessing.forkserver" in command:
        return "pool process"
    try:
        flow = process.environ().get("PREFECT__FLOW_NAME", "")
    except psutil.Error:
        return ""
    return flow if flow in SHARES else ""
