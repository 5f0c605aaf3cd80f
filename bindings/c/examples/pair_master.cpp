// The master.
#include <chrono>
#include <eshm.hpp>
#include <thread>

int main()
{
    eshm::bus bus("telemetry", eshm::role::master);
    for (std::uint64_t reading = 0;; ++reading) {
        bus.write_value(reading); // waits if the slave is behind, or not there yet
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}
