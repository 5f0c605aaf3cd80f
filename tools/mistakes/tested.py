"""Mistakes that one named test must find: those of the 25 faults of `docs/proof.md` that are not in the
order of steps alone, and of what was suspected beside them. The number is the fault's.

Name, file, (text, replacement), and for each test: what to build, and the test.
"""

BUS, WRITER, READER = "src/bus.rs", "src/bus/writer.rs", "src/bus/reader.rs"
MANY, FILE, SEGMENT = "src/bus/reader/many.rs", "src/segment/file.rs", "src/segment.rs"
MEMBER, SESSION, REPLACE = "src/session/member.rs", "src/session.rs", "src/session/replace.rs"
HEART = "src/session/member/heart.rs"
LEAVE, TAP, PEER = "src/session/leave.rs", "src/tap.rs", "src/peer.rs"
PRODUCER, CONSUMER, RING = "src/ring/producer.rs", "src/ring/consumer.rs", "src/ring.rs"
DOORBELL, CURSOR = "src/ring/doorbell.rs", "src/ring/tap.rs"
THREAD, POLL, FORK = "src/sys/thread.rs", "src/sys/poll.rs", "src/sys/fork.rs"
SIGBUS, SHOWN = "src/sys/sigbus.rs", "src/bus/reader/shown.rs"


def test(file, name):
    return ["-p", "eshm", "--test", file], [name]


def unit(name):
    return ["-p", "eshm", "--lib"], [name]


def stopped(name):
    return ["-p", "eshm", "--features", "failpoints", "--test", "stopped_between"], [name]


def quick(proof, *names):
    """A step proof, as `cargo test` runs it."""
    return ["-p", "eshm", "--test", proof], list(names)


def in_c(name):
    return ["-p", "eshm-c", "--lib"], [name]


def program(name):
    return ["-p", "eshm-c", "--test", "programs"], [name]


def command(file, name):
    return ["-p", "eshm-cli", "--test", file], [name]


TESTED = [
    ("1 a rebuild takes an overwritten tail for whole", RING,
     [("self.overwrite && reserve.wrapping_sub(tail.pos) > self.capacity", "false")],
     [unit("what_an_overwriting_writer_leaves_behind_a_seal_is_whole_and_counted")]),
    ("1 an overwriting writer goes on behind the seal", PRODUCER,
     [("        self.check_seal()?;\n", "")],
     [unit("a_writer_that_finds_the_seal_writes_no_further_than_it_had_reserved")]),
    ("2 a reader of an overwritten ring looks for its head", CONSUMER,
     [("        if !ring.overwrite {\n            ring.check_distance",
       "        if true {\n            ring.check_distance")],
     [unit("a_reader_that_opens_on_what_is_overwritten_needs_no_head")]),
    ("3 a tap tells what a fenced writer wrote", TAP,
     [("if self.segment.is_sealed() && !self.is_inside(&copied) {", "if false {")],
     [quick("proof_freeze", "tap")]),
    ("3 a tap stays where the bus was", TAP,
     [("            None => self.follow(),", "            None => Err(Error::Empty),"),
      ("            self.cursor = before;\n            return self.follow();",
       "            self.cursor = before;\n            return Err(Error::Empty);")],
     [test("tap", "a_tap_follows_the_bus_when_its_segment_is_replaced")]),
    ("5 losses of one reader after another", "bindings/c/src/bus.rs",
     [("        if counted < self.seen {\n"
       "            self.before = self.before.wrapping_add(self.seen);\n        }\n", "")],
     [in_c("what_was_lost_is_told_once_and_exactly")]),
    ("6 the word does not name its holder", "bindings/c/src/turn.rs",
     [("        if seen & !SLEEPERS == me || is_owner_inside() {",
       "        if seen & !SLEEPERS == me && is_owner_inside() {")],
     [in_c("a_second_entry_of_one_thread_is_refused")]),
    ("7 the length of a value is that of another message", READER,
     [("let len = if self.ring.is_racing() { self.try_peek()?.len() } else { self.next_len()? };",
       "let len = self.next_len()?;"),
      ("            len => Err(Error::WrongSize { len, expected }),", "            _ => Ok(()),")],
     [test("overwrite", "a_value_is_of_one_whole_message_of_its_size")]),
    ("8 a skip stays at what was peeked", READER,
     [("return Ok(passed + self.pass_shown(passed > 0)?);", "return Ok(passed);")],
     [test("overwrite", "skipping_to_the_latest_goes_past_what_was_peeked")]),
    ("9 a sleeper takes back that somebody must fence", DOORBELL,
     [("        self.0.fetch_or(bits, Ordering::Relaxed);\n        fence(",
       "        self.0.fetch_or(bits, Ordering::Relaxed);\n"
       "        self.0.fetch_and(!FENCE | bits, Ordering::Relaxed);\n        fence(")],
     [unit("who_asked_for_fences_gets_them_for_ever")]),
    ("11 a name that may not be moved is an error", LEAVE,
     [("libc::EPERM | libc::EACCES | libc::EROFS", "libc::EROFS")],
     [test("two_users", "two_users_of_a_group_take_over_from_each_other_and_leave")]),
    ("12 the thread is started behind the opening", BUS,
     [("        let promise = self.background.then(pulse::promise).transpose()?;\n"
       "        let lease = Arc::new(Lease { member: session::open(self)? });\n",
       "        let lease = Arc::new(Lease { member: session::open(self)? });\n"
       "        let promise = self.background.then(pulse::promise).transpose()?;\n")],
     [test("scarce", "an_open_without_a_thread_changes_nothing")]),
    ("12 an open that fails leaves cleanly", BUS,
     [("halves.inspect_err(|error| lease.condemn(error.clone()))", "halves")],
     [test("p09_hostile_segment", "impossible_positions_are_corrupt")]),
    ("14 the thread has the descriptors of its host", POLL,
     [("        let epoll = thread::own_descriptors()\n            .then(",
       "        let _ = thread::own_descriptors as fn() -> bool;\n"
       "        let epoll = true\n            .then(")],
     [test("hosts", "a_child_that_lives_on_has_nothing_and_costs_nothing"),
      unit("neither_a_closing_host_nor_its_child_disturbs")]),
    ("14 an endpoint keeps its descriptor", SEGMENT,
     [("        self.bus.close();\n", "")],
     [test("hosts", "a_child_that_lives_on_has_nothing_and_costs_nothing")]),
    ("15 the thread takes signals of its host", THREAD,
     [("let mut blocked = SigSet::all();", "let mut blocked = SigSet::empty();")],
     [test("hosts", "a_host_that_waits_for_a_signal_gets_it")]),
    ("16 a number is closed whatever it is by now", FORK,
     [("        if self.is_ours() {\n            // SAFETY: a number",
       "        if self.is_ours() || true {\n            // SAFETY: a number")],
     [unit("a_number_that_is_another_file_by_now_is_left_alone")]),
    ("17 observers map what they look at", FILE,
     [("        let checked = BusFile::open_checked(path, options, false)?;\n",
       "        if !path.as_os_str().is_empty() {\n"
       "            return BusFile::open_at(path, options, false);\n        }\n"
       "        let checked = BusFile::open_checked(path, options, false)?;\n")],
     [test("two_users", "observers_survive_a_file_that_is_cut_short")]),
    ("18 a bus without a name is of no use", HEART,
     [("        if self.is_nameless.swap(!is_named, Ordering::Relaxed) == is_named {\n",
       "        if !is_named {\n"
       "            self.condemn(crate::error::Error::Lost { what: \"no name\", unread: 0 });\n        }\n"
       "        if self.is_nameless.swap(!is_named, Ordering::Relaxed) == is_named {\n")],
     [test("world", "a_pair_without_a_name_goes_on")]),
    ("18 who is left alone without a name is not told", MEMBER,
     [("Some(Error::Lost { what: \"its file was removed, and the peer is gone\", unread })",
       "(unread == u64::MAX).then_some(Error::Timeout)")],
     [test("world", "who_is_left_alone_without_a_name_is_told")]),
    ("19 the dead have left too", LEAVE, [("            _ => return None,\n", "            _ => {}\n")],
     [test("p03_unread_survives_restarts", "a_death_is_no_leaving")]),
    ("21 a wide mode makes up for a strange owner", FILE,
     [("    if facts.uid != ours && facts.uid != 0 && !options.trusted.contains(&facts.uid) {",
       "    if options.mode.is_none() && facts.uid != ours && facts.uid != 0\n"
       "        && !options.trusted.contains(&facts.uid)\n    {")],
     [test("two_users", "root_does_not_use_what_a_user_planted")]),
    ("22 no limit is no room", "tools/eshm/src/commands/doctor/checks.rs",
     [("    let free = (total > 0).then_some(free);", "    let free = (total < u64::MAX).then_some(free);")],
     [command("places", "doctor_knows_room_without_limit_and_no_room_for_a_second_slot")]),
    ("23 the heart waits for a thread of the application", HEART,
     [("let Some(_moving) = self.moving.try_lock() else { return };",
       "let _moving = self.moving.lock();")],
     [stopped("finishing_a_big_replacement_stops_no_heart")]),
    ("24 a slow heart is given no time", PEER,
     [("self.stale_ns.max(slow_ns.min(LONGEST_SILENCE_NS))",
       "{ let _ = slow_ns.min(LONGEST_SILENCE_NS); self.stale_ns }")],
     [test("hosts", "a_slow_heart_is_no_hang")]),
    ("24 a slow heart is given all the time", PEER,
     [("self.stale_ns.max(slow_ns.min(LONGEST_SILENCE_NS))",
       "self.stale_ns.max(slow_ns.max(LONGEST_SILENCE_NS))")],
     [test("hosts", "a_slow_heart_that_stops_is_found_in_the_end")]),
    ("25 a record of a dead sealer is used up", REPLACE,
     [("    let lines = &segment.page().cuts[record];\n",
       "    let lines = &segment.page().cuts[record];\n"
       "    if lines.rings.iter().any(|it| it.bytes.load(Ordering::Relaxed) != 0) {\n"
       "        return Err(Error::Corrupt { what: \"no record is left\" });\n    }\n")],
     [stopped("killed_sealers_use_nothing_up")]),
    # What was suspected beside them, and was true.
    ("S the keeper of an earlier seat is forgotten", MEMBER,
     [("            true => seat.before.push(old),", "            true => seat.before.clear(),")],
     [stopped("a_mover_that_is_overtaken_keeps_its_place")]),
    ("S a page is believed without a look at the turn", REPLACE,
     [("    if bus.turn() != turn {\n        return Ok(None);\n    }\n    check_kept", "    check_kept")],
     [stopped("a_mover_that_was_refused_does_not_believe_a_page_used_again")]),
    ("S any error condemns", MEMBER,
     [("        if !matches!(error, Error::Os { .. } | Error::Access { .. } | Error::Timeout) {",
       "        if !matches!(error, Error::Timeout) {")],
     [stopped("no_descriptor_to_move_with_is_no_end")]),
    ("S a verdict is not looked at again", REPLACE,
     [("verdict.filter(|verdict| verdict.still_holds(old)).map(",
       "verdict.filter(|verdict| verdict.still_holds(old) || true).map(")],
     [stopped("an_owner_that_lives_again_is_not_replaced_by_a_late_verdict")]),
    ("S a number ahead of its tail is believed", CONSUMER,
     [("        ring.lines().consumer.number.store(tail.number, Ordering::Relaxed);\n", "")],
     [test("p03_unread_survives_restarts", "a_message_that_was_counted_and_not_taken_is_unread")]),
    ("S a child takes its parent's ranges for its own", SIGBUS,
     [("        is_ours && (start..end).contains(&address)",
       "        (is_ours || true) && (start..end).contains(&address)")],
     [unit("a_childs_fault_at_such_an_address_is_not_ours")]),
    ("S a later handler ends the watch over mappings", SIGBUS,
     [("    let found = current();\n    if is_ours(&found) {",
       "    let found = current();\n    if is_ours(&found) || !BEFORE.load(Ordering::Acquire).is_null() {")],
     [unit("a_handler_that_a_host_installs_later_does_not_end_the_watch_for_good")]),
    ("S the library can be unloaded", "bindings/c/build.rs",
     [('    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");\n', "")],
     [program("loaded::")]),
    ("S a barrier that is refused later is not waited for", "bindings/c/src/thread.rs",
     [("        KNOWN.store(REFUSED, Ordering::Relaxed);\n        fence(Ordering::SeqCst);\n"
       "        sleep(ARRIVED);\n", "        fence(Ordering::SeqCst);\n        let _ = sleep;\n")],
     [program("refused::as_c11")]),
    ("S a boundary that counts is written over", PRODUCER,
     [("let is_marked = ring.whole_mark(head.pos).is_some();", "let is_marked = false;")],
     [unit("a_successor_does_not_replace_a_boundary_that_counts")]),
    ("S a copy is shown without a look for the seal", SHOWN,
     [("                    match self.hand_out(len) {", "                    match Ok(len) {")],
     [test("overwrite", "a_peek_shows_nothing_from_behind_a_cut")]),
]
