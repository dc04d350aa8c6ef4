"""Pictures of other classes than digits are scored as the service reads them."""

from support.bundles import COLOURS, colour_picture

from pipeline.score import main


def test_pictures_in_colour_are_read_and_named_by_their_classes(colours, tmp_path):
    for name, colour in COLOURS.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        for place, size in enumerate([(32, 32), (90, 60), (20, 44)]):
            content = colour_picture(colour, size)
            (tmp_path / "in" / name / f"{place}.png").write_bytes(content)
    wrong = next(iter(COLOURS))
    content = colour_picture(list(COLOURS.values())[1])
    (tmp_path / "in" / wrong / "other.png").write_bytes(content)
    out = tmp_path / "out"
    main([str(tmp_path / "in"), "--bundle", str(colours), "--out", str(out)])
    page = (out / "index.html").read_text()
    assert "By class" in page
    assert "(32\N{MULTIPLICATION SIGN}32)" in page
    assert "digit" not in page.replace("digit_likelihood", "")
    main(
        [
            "--explain",
            str(tmp_path / "in" / wrong / "other.png"),
            "--bundle",
            str(colours),
            "--out",
            str(out),
        ]
    )
    assert "Prepared as 32\N{MULTIPLICATION SIGN}32" in (out / "explained.html").read_text()
