"""Where the sun stands over the house, and what a panel makes of a clear sky.

The sun's declination and the equation of time come from astral, once a day; the rest is the textbook formula of the
hour angle, cheap enough to be asked for every day since the commissioning.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from astral.julian import julianday, julianday_to_juliancentury
from astral.sun import eq_of_time, sun_declination

DAY_S = 86400
_PANEL_TILT_DEGREES = 30
_SOLAR_CONSTANT_W_PER_M2 = 1361
_DIFFUSE_SHARE = 0.1


@dataclass(frozen=True)
class Place:
    """A point on the earth, in degrees north and east."""

    latitude: float
    longitude: float


@dataclass(frozen=True)
class Sun:
    """The sun's path over one place on one day."""

    place: Place
    declination_radians: float
    equation_of_time_s: float

    @classmethod
    def on(cls, place: Place, time: float) -> "Sun":
        """Return the path of the day around `time`, in epoch seconds."""
        century = julianday_to_juliancentury(julianday(datetime.fromtimestamp(time, UTC)))
        return cls(place, math.radians(sun_declination(century)), eq_of_time(century) * 60)

    def _hour_angle_radians(self, time: float) -> float:
        solar_s = time % DAY_S + self.equation_of_time_s + self.place.longitude / 360 * DAY_S
        return (solar_s / DAY_S - 0.5) * 2 * math.pi

    def _cosine_to_a_plane(self, time: float, latitude: float) -> float:
        """Return the cosine of the angle between the sun and the zenith of a latitude on the house's meridian."""
        latitude_radians = math.radians(latitude)
        return math.sin(self.declination_radians) * math.sin(latitude_radians) + math.cos(
            self.declination_radians
        ) * math.cos(latitude_radians) * math.cos(self._hour_angle_radians(time))

    def elevation_degrees(self, time: float) -> float:
        """Return the sun's height over the horizon, without refraction."""
        return math.degrees(math.asin(self._cosine_to_a_plane(time, self.place.latitude)))

    def clear_sky_w_per_m2(self, time: float) -> float:
        """Return what falls on a panel that leans towards the equator, under a clear sky."""
        height = self._cosine_to_a_plane(time, self.place.latitude)
        if height <= 0:
            return 0.0
        # Meinel's attenuation; the small summand keeps the air mass finite on the horizon.
        air_mass = 1 / (height + 0.025)
        direct = _SOLAR_CONSTANT_W_PER_M2 * math.pow(0.7, math.pow(air_mass, 0.678))
        towards_equator = -math.copysign(_PANEL_TILT_DEGREES, self.place.latitude)
        on_panel = max(0.0, self._cosine_to_a_plane(time, self.place.latitude + towards_equator))
        return direct * (on_panel + _DIFFUSE_SHARE * min(1.0, 4 * height))
