// The slave. Either of the two may be started first, and started again as often as you like.
#include <eshm.hpp>
#include <iostream>

int main()
{
    eshm::bus bus("telemetry", eshm::role::slave);
    for (;;) {
        std::error_code trouble;
        if (auto reading = bus.read_value<std::uint64_t>(trouble)) {
            std::cout << bus.last_id()->epoch << ": " << *reading << std::endl;
        } else if (trouble == eshm::errc::timeout) {
            std::cout << "silence; the master is " << (bus.is_peer_alive() ? "alive" : "gone") << std::endl;
        } else {
            throw eshm::error(trouble.value());
        }
    }
}
