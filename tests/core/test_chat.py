"""Conversations: pictures are shown once and in order, and a user speaks last."""

import pytest

from handlens.core.chat import Shown, Turn, ask, check, reply
from handlens.errors import SettingError


def test_ask_shows_every_picture_before_the_question():
    assert ask("Which is older?", 2) == (Turn("user", (Shown(0), Shown(1), "Which is older?")),)


def test_reply_keeps_the_conversation():
    chat = reply(ask("What is it?"), "A receipt.", "What is the total?")
    assert [turn.role for turn in chat] == ["user", "assistant", "user"]
    assert chat[1].content == ("A receipt.",)
    check(chat, 1)


@pytest.mark.parametrize(
    ("chat", "num_pictures", "message"),
    [
        (ask("?", 1), 2, "the chat shows pictures [0] but 2 were given; show each once, in order"),
        ((Turn("user", (Shown(1), Shown(0), "?")),), 2, "the chat shows pictures [1, 0] but 2 were given"),
        ((Turn("user", (Shown(0), Shown(0), "?")),), 1, "the chat shows pictures [0, 0] but 1 were given"),
        ((*ask("?"), Turn("assistant", ("yes",))), 1, "the chat must end with a user turn"),
        ((), 0, "the chat must end with a user turn"),
    ],
)
def test_misshapen_chats_are_refused(chat, num_pictures, message):
    with pytest.raises(SettingError) as error:
        check(chat, num_pictures)
    assert message in str(error.value)
