"""The kinds of screens on which pages are looked at, as options of Playwright's `new_page`."""

VIEWS = {
    "light": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 375, "height": 812}, "color_scheme": "light"},
    "phone-dark": {"viewport": {"width": 375, "height": 812}, "color_scheme": "dark"},
}
