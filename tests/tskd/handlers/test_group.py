"""Named handlers are attached one by one."""

from ignite.engine import Engine

from tskd.handlers import HandlerGroup


def test_group_attaches_in_order_and_skips_what_is_disabled():
    attached = []

    class Handler:
        def __init__(self, name):
            self.name = name

        def attach(self, engine):
            attached.append((self.name, engine))

    engine = Engine(lambda *_: None)
    HandlerGroup({"b": Handler("b"), "off": None, "a": Handler("a")}).attach(engine)
    assert attached == [("b", engine), ("a", engine)]
