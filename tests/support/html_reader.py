"""What the tests ask of an HTML page."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """What the tests ask of the page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.heads = []  # the text of each <th>
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "th":
            self.heads.append("")
        if tag not in {"img", "meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data
        if "th" in self.open:
            self.heads[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]
