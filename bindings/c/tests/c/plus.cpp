// plus.cpp - the C++17 header.
#include "eshm.hpp"
#include "check.h"

#include <cstring>
#include <type_traits>

static_assert(!std::is_copy_constructible_v<eshm::bus> && std::is_move_constructible_v<eshm::bus>);
static_assert(!std::is_copy_constructible_v<eshm::claim> && !std::is_copy_constructible_v<eshm::tap>);

static void text_and_values()
{
    std::string name = bus_name("text");
    eshm::bus master(name, eshm::role::master), slave(name, eshm::role::slave);
    CHECK(master.role() == eshm::role::master && slave.role() == eshm::role::slave);
    master.write("a literal");
    master.write(std::string("a string"));
    master.write(std::vector<int>{1, 2, 3});
    master.write_value(42.0);
    std::vector<std::byte> buffer(64);
    EQUAL(slave.read(buffer), 9);
    CHECK(eshm::view(buffer.data(), 9).text() == "a literal");
    std::vector<std::byte> message = slave.read();
    CHECK(eshm::view(message).text() == "a string");
    int numbers[3];
    EQUAL(slave.read(eshm::place(numbers, sizeof numbers)), sizeof numbers);
    EQUAL(numbers[2], 3);
    double value = 0;
    EQUAL(slave.read(eshm::place(&value, sizeof value)), sizeof value);
    CHECK(value == 42.0);
    CHECK(!slave.try_read(buffer).has_value());
    master.write("");
    CHECK(slave.try_read(buffer) == std::optional<std::size_t>(0));
    CHECK(master.wait_for_peer(eshm::milliseconds(20000)));
    CHECK(master.is_peer_alive());
    EQUAL(master.peer().state, ESHM_PEER_ALIVE);
    EQUAL(master.stats().master_to_slave.written, 5);
    EQUAL(master.last_committed()->number, 4);
    CHECK(!slave.last_committed().has_value());
}

static void failures()
{
    std::string name = bus_name("failures");
    bool thrown = false;
    try {
        eshm::bus slave(name, eshm::role::slave);
    } catch (const eshm::error &trouble) {
        thrown = true;
        CHECK(trouble.code() == eshm::errc::no_segment);
        CHECK(std::string(trouble.what()).find(name) != std::string::npos);
    }
    CHECK(thrown);
    std::error_code trouble;
    ESHMOptions options = eshm_default_options(name.c_str());
    options.role = ESHM_ROLE_SLAVE;
    CHECK(!eshm::bus::open(options, trouble) && trouble == eshm::errc::no_segment);
    options.role = ESHM_ROLE_MASTER;
    std::optional<eshm::bus> master = eshm::bus::open(options, trouble);
    CHECK(master && !trouble);
    std::byte buffer[8];
    EQUAL(master->read(eshm::place(buffer, 8), eshm::no_wait, trouble), 0);
    CHECK(trouble == eshm::errc::no_data);
    master->read(eshm::place(buffer, 8), eshm::milliseconds(1), trouble);
    CHECK(trouble == eshm::errc::timeout);
    CHECK(!trouble.message().empty());
    CHECK(!master->wait_for_peer(eshm::no_wait));
    while (master->try_write("fill")) {
    }
    master->write("x", eshm::no_wait, trouble);
    CHECK(trouble == eshm::errc::full);
}

static void in_place()
{
    std::string name = bus_name("in-place");
    eshm::bus first(name, eshm::role::master), slave(name, eshm::role::slave);
    eshm::bus master = std::move(first);
    CHECK(first.handle() == nullptr);
    {
        eshm::claim place = master.make(100);
        EQUAL(place.size(), 100);
        std::memcpy(place.data(), "given up", 8);
    }
    {
        eshm::claim place = master.make(100);
        std::memcpy(place.data(), "sent", 4);
        place.commit(4);
    }
    {
        eshm::peek kept = slave.look();
        CHECK(kept.bytes().text() == "sent");
        EQUAL(kept.id().number, 0);
    }
    eshm::peek next = slave.look();
    CHECK(next.bytes().text() == "sent");
    next.release();
    CHECK(!slave.try_read(eshm::place()).has_value());
}

static void looking_on()
{
    ESHMOptions options = eshm_default_options(bus_name("tap"));
    options.role = ESHM_ROLE_MASTER;
    eshm::bus master(options);
    eshm::tap tap(options, ESHM_MASTER_TO_SLAVE);
    std::byte buffer[16];
    CHECK(!tap.read(eshm::place(buffer, 16), eshm::no_wait));
    master.write("seen");
    auto message = tap.read(eshm::place(buffer, 16));
    CHECK(message && message->size == 4 && message->id.number == 0);
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"text_and_values", text_and_values},
        {"failures", failures},
        {"in_place", in_place},
        {"looking_on", looking_on},
    };
    return RUN(tests, argc, argv);
}
