"""Mistakes that `tools/simulate` must find, for `tools/prove-harness --by simulator`.

Each was made once, by this library or by an earlier one of its line, or is the nearest relative of such
a mistake in a design of one file. Name, file, (text, replacement); then how many schedules it may take.
`docs/proof.md` has the table.
"""

FILE, MEMBER = "src/segment/file.rs", "src/session/member.rs"
HEART = "src/session/member/heart.rs"
SESSION, REPLACE, LEAVE = "src/session.rs", "src/session/replace.rs", "src/session/leave.rs"
READER, MANY, SHOWN, WRITER = ("src/bus/reader.rs", "src/bus/reader/many.rs",
                               "src/bus/reader/shown.rs", "src/bus/writer.rs")
CONSUMER, RING, TAP, PEER = ("src/ring/consumer.rs", "src/ring.rs", "src/tap.rs", "src/peer.rs")

MOST = 200_000

SIMULATED = [
    ("1 rebuild believes a tail that was overwritten", RING,
     [("self.overwrite && reserve.wrapping_sub(tail.pos) > self.capacity", "false")]),
    ("3 a tap tells what lies behind the cut", TAP,
     [("if self.segment.is_sealed() && !self.is_inside(&copied) {", "if false {")]),
    ("3 a tap does not follow", TAP,
     [("            None => self.follow(),", "            None => Err(Error::Empty),"),
      ("            self.cursor = before;\n            return self.follow();",
       "            self.cursor = before;\n            return Err(Error::Empty);")]),
    ("4 a batch is dropped when the bus moves", READER,
     [("                if batch.is_empty() { Err(Error::Empty) } else { Ok(()) }",
       "                batch.clear();\n                Err(Error::Empty)")]),
    ("7 the length of a value is ignored", READER,
     [("        if len != expected {\n", "        if len > expected {\n")]),
    ("8 the newest is what was shown before", READER,
     [("return Ok(passed + self.pass_shown(passed > 0)?);", "return Ok(passed);")]),
    ("9 an owner without barriers does not ask for fences", SESSION,
     [("        if !is_registered {\n", "        if false {\n")]),
    ("9 what is cleared from a bell takes the fences with it", "src/ring/doorbell.rs",
     [("self.0.fetch_and(!bits, Ordering::Relaxed)",
       "self.0.fetch_and(!(bits | FENCE), Ordering::Relaxed)")]),
    ("10 a write that moved gives up at once", WRITER,
     [("        let mut waiter = Waiter::new(self.lease.options.wait, timeout);\n        loop {\n"
       "            match self.try_once(message) {\n                Err(Error::Full) => {}",
       "        let mut waiter = Waiter::new(self.lease.options.wait, timeout);\n"
       "        let at = Arc::as_ptr(&self.segment);\n        loop {\n"
       "            match self.try_once(message) {\n"
       "                Err(Error::Full) if at == Arc::as_ptr(&self.segment) => {}")]),
    ("11 a name that may not be moved is an error", LEAVE,
     [("libc::EPERM | libc::EACCES | libc::EROFS", "libc::EROFS")]),
    ("13 nobody takes the name of a removed bus away", SESSION,
     [("    if leave::take_name_away(&bus)? {\n        return Ok(None);\n    }\n"
       "    check_asked(&bus, options)?;\n",
       "    if options.role != Role::Slave { return Err(Error::Timeout); }\n"
       "    check_asked(&bus, options)?;\n")]),
    ("19 the dead have left too", LEAVE,
     [("            _ => return None,\n", "            _ => {}\n")]),
    ("19 a reader that leaves takes what is unread", LEAVE,
     [("Cleanup::WhenRead => unread_in(bus, &view) == [0, 0],",
       "Cleanup::WhenRead => unread_in(bus, &view).contains(&0),")]),
    ("20 a name is removed without a look at its file", LEAVE,
     [("    let is_ours = shm::facts_at(&aside)?.is_some_and(|facts| facts.id == bus.facts().id);",
       "    let is_ours = true;")]),
    ("20 a name is unlinked where it is", LEAVE,
     [("    let aside = path_aside(path);\n",
       "    let aside = path_aside(path);\n    return shm::unlink(path).map(|_| true);\n")]),
    ("23 the heart waits for a thread of the application", HEART,
     [("let Some(_moving) = self.moving.try_lock() else { return };",
       "let _moving = self.moving.lock();")]),
    ("25 a record of a dead sealer is used up", REPLACE,
     [("    let lines = &segment.page().cuts[record];\n",
       "    let lines = &segment.page().cuts[record];\n"
       "    if lines.rings.iter().any(|it| it.head.load(Ordering::Relaxed) != 0) {\n"
       "        return Err(Error::Corrupt { what: \"no record is left\" });\n    }\n")]),
    ("any error condemns", MEMBER,
     [("        if !matches!(error, Error::Os { .. } | Error::Access { .. } | Error::Timeout) {",
       "        if !matches!(error, Error::Timeout) {")]),
    ("all bytes are locked without the builder's", FILE,
     [("        if !self.try_lock(builder..builder + 1)? {\n            return Ok(false);\n        }\n"
       "        if self.turn() == turn && self.try_lock(bytes_of(slot))? {",
       "        if builder > 0 && self.try_lock(bytes_of(slot))? {\n            let _ = turn;")]),
    ("a slot is taken without a look at the turn", FILE,
     [("            if self.turn() != turn {\n                self.unlock(bytes_of(slot))?;\n"
       "                return Ok(None);\n            }\n", ""),
      ("        if self.turn() == turn && self.try_lock(bytes_of(slot))? {",
       "        if self.try_lock(bytes_of(slot))? {"),
      ("(0..SLOTS_MAX).filter(|&slot| turn.slot() != Some(slot)) {\n"
       "            if !self.try_lock_unused(slot, turn)? {\n                // Not",
       "0..SLOTS_MAX {\n            if turn.slot() == Some(slot) { continue }\n"
       "            if !self.try_lock_unused(slot, turn)? {\n                // Not")]),
    ("tidying takes pages that are mapped", FILE,
     [("            if !self.try_lock_unused(slot, turn)? {\n                is_tidy = false;",
       "            if !self.try_lock_unused(slot, turn)? && is_tidy && slot > SLOTS_MAX {\n"
       "                is_tidy = false;")]),
    ("the turn is swapped whatever it is", FILE,
     [("        word.compare_exchange(from.0, from.next(slot).0, Ordering::AcqRel, Ordering::Relaxed)\n"
       "            .is_ok()",
       "        word.store(from.next(slot).0, Ordering::Release);\n        true")]),
    ("a bus is retired without its locks", LEAVE,
     [("    while !bus.try_lock(bytes.clone())? {",
       "    while false && !bus.try_lock(bytes.clone())? {")]),
    ("a message is read from behind the cut", READER,
     [("        if !is_inside {\n            self.ring.rewind(cut.head);\n        }\n        is_inside\n",
       "        is_inside || true\n")]),
    ("what a fenced reader read is not given back", READER,
     [("                if !is_mine {\n                    self.ring.rewind(cut.tail);\n"
       "                }\n                return if is_inside && is_mine { Ok(true) } else { Err(error) };",
       "                let _ = is_mine;\n"
       "                return if is_inside { Ok(true) } else { Err(error) };")]),
    ("a message behind the cut counts as written", WRITER,
     [("        if end.wrapping_sub(self.cut()?.pos) as i64 <= 0 {",
       "        if end.wrapping_sub(self.cut()?.pos) as i64 <= i64::MAX {")]),
]

# Not found within 20,000 schedules; asked only by their full names. Of the third no harm is known: nobody
# maps a slot that never counted. The last one is guarded a second time by the state of the role.
OPEN = [
    ("20 a bus that was revived is unlinked", LEAVE,
     [("if is_ours && bus.turn() == turn {", "if is_ours {")]),
    ("21 a file that others may use is trusted", FILE,
     [("    if facts.uid != ours && facts.uid != 0 && !options.trusted.contains(&facts.uid) {",
       "    if facts.mode & 0o006 == 0 && facts.uid != ours && facts.uid != 0\n"
       "        && !options.trusted.contains(&facts.uid)\n    {")]),
    ("a slot is given back under those who map it", REPLACE,
     [("    if bus.try_lock(crate::segment::bytes_of(slot))? {",
       "    if bus.try_lock(crate::segment::bytes_of(slot))? || true {")]),
    ("whoever leaves does not look at the seal again", MEMBER,
     [("            if !seat.segment.is_sealed() {\n                break;\n            }\n",
       "            if turn < 1000 {\n                break;\n            }\n")]),
    ("a bus is retired under those who move", LEAVE,
     [("        && !is_awaited(bus, slot)?\n", "        && (is_awaited(bus, slot)? || true)\n")]),
]
