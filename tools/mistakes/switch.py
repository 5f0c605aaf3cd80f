"""Many mistakes in one build: the environment says which one is made.

Each function in which a mistake is to be made gets a copy beside it with the mistake in it, and at its
top a look whether that one is executed instead. So all of them are built once.
"""

import re

# The word in the environment: the number of the mistake.
WORD = "ESHM_MISTAKE"
FUNCTION = re.compile(
    r"^( {0}| {4})((?:pub(?:\([^)]*\))? )?(?:const |unsafe |extern \"C\" )*)fn (\w+)", re.M)
LOOK = f'''
pub(crate) fn is_broken(number: u32) -> bool {{
    match NUMBER.load(std::sync::atomic::Ordering::Relaxed) {{
        u32::MAX => look(),
        _ => {{}}
    }}
    NUMBER.load(std::sync::atomic::Ordering::Relaxed) == number
}}

static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(u32::MAX);

// Before `main`, if nobody was faster: what is simulated has a heap of its own, and no environment.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {{
    let word = std::env::var("{WORD}").ok().and_then(|word| word.parse().ok());
    NUMBER.store(word.unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
}}
'''


class Function:
    """One that stands at the margin, or in an `impl` that does."""

    def __init__(self, text, found):
        self.start, self.indent = found.start(), found[1]
        self.qualifiers, self.name = found[2], found[3]
        self.end = text.index(f"\n{self.indent}}}\n", self.start) + len(self.indent) + 3
        self.text = text[self.start:self.end]
        opening = re.search(r"\{\n", self.text)
        self.body_at = opening.end() if opening else None
        heads = re.findall(r"^impl.*$", text[:self.start], re.M)
        self.is_method = bool(self.indent)
        # A trait's implementation takes no other functions.
        self.is_fixed = self.is_method and " for " in (heads[-1] if heads else " for ")

    def arguments(self):
        """What the copy is called with: the names of the parameters."""
        depth, begun, parts = 0, None, [""]
        head = self.text.index(f"fn {self.name}")
        for at, letter in enumerate(self.text[head:], head):
            if begun is None:
                # Not one of the bounds of a generic.
                before = self.text[head:at].replace("->", "")
                if letter == "(" and before.count("<") == before.count(">"):
                    begun, depth = at, 1
                continue
            depth += {"(": 1, "[": 1, "<": 1, ")": -1, "]": -1}.get(letter, 0)
            if letter == ">" and self.text[at - 1] != "-":
                depth -= 1
            if depth == 0:
                break
            if letter == "," and depth == 1:
                parts.append("")
            else:
                parts[-1] += letter
        names = [part.split(":")[0].strip().removeprefix("mut ") for part in parts if part.strip()]
        return names

    def copy(self, edits, number):
        """The copy with the mistake."""
        text = self.text
        for before, after in edits:
            text = text.replace(before, after)
        text = text.replace(f"fn {self.name}", f"fn {self.name}_m{number}", 1)
        return "\n" + re.sub(r"^( *)pub(?:\([^)]*\))? ", r"\1", text)

    def call(self, number):
        """The look, as the first statement."""
        names = self.arguments()
        has_self = bool(names) and names[0].lstrip("&").removeprefix("mut ").strip() == "self"
        to = "self." if has_self else "Self::" if self.is_method else ""
        given = ", ".join(names[1:] if has_self else names)
        call = f"{to}{self.name}_m{number}({given})"
        if "unsafe" in self.qualifiers:
            call = f"unsafe {{ {call} }}"
        return f"{self.indent}    if crate::is_broken({number}) {{\n" \
               f"{self.indent}        return {call};\n{self.indent}    }}\n"


def places(text, edits):
    """Which function each edit lies in; `None` if one lies in none."""
    functions = [Function(text, found) for found in FUNCTION.finditer(text)]
    by_function = {}
    for edit in edits:
        if text.count(edit[0]) != 1:
            return None
        at = text.index(edit[0])
        around = [it for it in functions
                  if it.body_at and it.start + it.body_at <= at and at + len(edit[0]) <= it.end]
        if not around or around[-1].is_fixed or "const " in around[-1].qualifiers:
            return None
        by_function.setdefault(around[-1].start, (around[-1], []))[1].append(edit)
    return [by_function[start] for start in by_function]


def switched(root, mistakes):
    """The files with all those mistakes that can be switched, and their numbers."""
    found, numbers = {}, {}
    for number, (name, file, edits, _) in enumerate(mistakes, 1):
        if not file.startswith("src/"):
            continue
        text = (root / file).read_text()
        where = places(text, edits)
        if where is not None:
            numbers[name, str(edits)] = number
            found.setdefault(file, []).extend((it, edits, number) for it, edits in where)
    files = {}
    for file, all_of_it in found.items():
        text = (root / file).read_text()
        for start in sorted({it.start for it, _, _ in all_of_it}, reverse=True):
            here = [one for one in all_of_it if one[0].start == start]
            function = here[0][0]
            looks = "".join(function.call(number) for _, _, number in here)
            copies = "".join(function.copy(edits, number) for _, edits, number in here)
            body = start + function.body_at
            text = text[:body] + looks + text[body:function.end] + copies + text[function.end:]
        files[file] = text.encode()
    files["src/lib.rs"] = files.get("src/lib.rs", (root / "src/lib.rs").read_bytes()) + LOOK.encode()
    return files, numbers
