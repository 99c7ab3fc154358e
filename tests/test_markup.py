"""HTML made of elements."""

from html.parser import HTMLParser

from serkit.markup import Markup, document, element, joined, table

EVIL = '<script>alert(1)</script> & "quotes" \''


class Reader(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.attributes = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_texts_and_attributes_come_back_letter_by_letter():
    read = Reader(element("p", EVIL, element("b", EVIL), title=EVIL))
    assert read.tags == ["p", "b"]
    assert read.text == 2 * EVIL
    assert read.attributes == [("title", EVIL)]


def test_text_is_never_markup_and_markup_stays():
    assert joined(["<b>", Markup("<i></i>"), 1]) == "&lt;b&gt;<i></i>1"
    assert Reader(document(EVIL, "", EVIL)).tags == [
        "html", "head", "meta", "meta", "meta", "title", "style", "body",
    ]  # fmt: skip


def test_columns_of_numbers_stand_to_the_right():
    page = table(
        ("name", "number", "mixed", "none"),
        [("a", "-1.5", "1", ""), ("b", element("b", "2"), "x", "")],
    )
    assert page.count('class="number"') == 3
    assert '<th class="number">number</th>' in page
    assert table(("name",), []) == "<table><tr><th>name</th></tr></table>"
