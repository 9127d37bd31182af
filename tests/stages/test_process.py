import subprocess
import sys


def test_a_small_child_of_a_large_process_is_small():
    data = b"x" * 300_000_000
    program = "from dgasr.stages.process import peak_memory_bytes; print(peak_memory_bytes())"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 5e6 < int(finished.stdout) < len(data)
