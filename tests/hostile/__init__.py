"""The standing battery: attacks of strangers and of holders of one signature, each with a bound that must hold.

A test here starts from a real server on loopback (`server`, one for each module) and speaks to it as an attacker does.
After the attack, and beside it where the attack lasts, an honest client must still get its upload stored.

How to write one:

    SETTINGS = {"UPONCE_DECODERS": "1"}  # optional: settings of this module's server


    def test_a_form_without_an_end(server: Server, honest: Honest) -> None:
        answer = raw(server.base, b"POST /v1_1/...", then="reset")
        assert answer.statuses in ([], [400])
        honest.upload()  # fails unless the answer is 200


    @pytest.mark.proof
    def test_many_forms_without_an_end(server: Server, honest: Honest) -> None:
        def attack() -> Waits:
            with honest.beside() as waits, budget(server.pid) as cost:
                for _ in range(100):
                    raw(server.base, ...)
            assert cost.cpu < 2 and cost.memory < 64 * MIB and cost.wall < 10
            return waits

        check_beside(attack, worst=1.0)

- `raw` sends bytes as they are, in pieces and with pauses if wanted, and returns all that came back.
- `honest.upload()` stores one small picture with a fresh signature. It returns the seconds that took.
- `honest.beside()` does so again and again in a thread. `check_beside(attack, worst=…, p50=…)` attacks until one attack
  is quick: every upload is stored and waits no longer. It fails at the first refusal, or if five attacks are slow.
  So it does not find a server that is slow in some attacks only. `Honest(server, base)` goes through a front server.
- `budget(pid)` measures a server with all its decoders: CPU seconds, memory it grew by, seconds on the wall.
- `decoding(tmp_path, content)` gives one file to one decoder and returns the same three, with the decoder's verdict.
- `spellings.py` writes one grant in every way that the server reads. `canaries.py` finds secrets where none may be.

`make test` runs what counts. What measures time, memory or CPU gets `@pytest.mark.proof`.
A front server or another tool that a laptop may lack gets `needed("caddy")` from `frame.py`: the test then skips, says
so in the summary, and fails in CI.
"""
