"""The position of the sun, and the irradiance of a tilted panel under a clear sky.

Astral computes declination and equation of time, once a day; the hour angle is the textbook formula, which is fast
enough for every day since the commissioning.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from astral.julian import julianday, julianday_to_juliancentury
from astral.sun import eq_of_time, sun_declination

DAY_S = 86400
PANEL_TILT_DEGREES = 30
SOLAR_CONSTANT_W_PER_M2 = 1361
DIFFUSE_FRACTION = 0.1


@dataclass(frozen=True)
class Place:
    """A point on the earth, in degrees north and east."""

    latitude: float
    longitude: float


@dataclass(frozen=True)
class Sun:
    """The path of the sun over one place on one day."""

    place: Place
    declination_radians: float
    equation_of_time_s: float

    @classmethod
    def on(cls, place: Place, time: float) -> "Sun":
        """Return the path on the day of a time in epoch seconds."""
        century = julianday_to_juliancentury(julianday(datetime.fromtimestamp(time, UTC)))
        return cls(place, math.radians(sun_declination(century)), eq_of_time(century) * 60)

    def elevation_degrees(self, time: float) -> float:
        """Return the sun's elevation above the horizon, without refraction."""
        return math.degrees(math.asin(self._cosine_from_zenith(time, self.place.latitude)))

    def clear_sky_w_per_m2(self, time: float) -> float:
        """Return the irradiance of a panel that is tilted towards the equator, under a clear sky."""
        height = self._cosine_from_zenith(time, self.place.latitude)
        if height <= 0:
            return 0.0
        # Meinel's attenuation; the small summand keeps the air mass finite at the horizon.
        air_mass = 1 / (height + 0.025)
        direct = SOLAR_CONSTANT_W_PER_M2 * math.pow(0.7, math.pow(air_mass, 0.678))
        tilt_to_equator = -math.copysign(PANEL_TILT_DEGREES, self.place.latitude)
        on_panel = max(0.0, self._cosine_from_zenith(time, self.place.latitude + tilt_to_equator))
        return direct * (on_panel + DIFFUSE_FRACTION * min(1.0, 4 * height))

    def _cosine_from_zenith(self, time: float, latitude: float) -> float:
        """Return the cosine of the angle between the sun and the zenith of a latitude on the house's meridian."""
        latitude_radians = math.radians(latitude)
        return math.sin(self.declination_radians) * math.sin(latitude_radians) + math.cos(
            self.declination_radians
        ) * math.cos(latitude_radians) * math.cos(self._hour_angle_radians(time))

    def _hour_angle_radians(self, time: float) -> float:
        solar_s = time % DAY_S + self.equation_of_time_s + self.place.longitude / 360 * DAY_S
        return (solar_s / DAY_S - 0.5) * 2 * math.pi
