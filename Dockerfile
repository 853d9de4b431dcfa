# An agent of Sabot, installed from wheels/ alone (`make wheels`): the build asks no package registry. The base image needs
# Python with venv, of the version that the wheels were made with, and glibc.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS install
COPY wheels /wheels
RUN python3 -m venv /opt/sabot && \
    /opt/sabot/bin/python -m pip install --no-index --find-links /wheels --no-cache-dir sabot

FROM ${BASE_IMAGE}
RUN useradd --system --uid 10001 --home-dir /var/lib/sabot --create-home --shell /usr/sbin/nologin sabot && \
    mkdir /data && chown sabot /data
COPY --from=install /opt/sabot /opt/sabot
ENV PATH=/opt/sabot/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_STATE_HOME=/var/lib
USER sabot
WORKDIR /var/lib/sabot
# control, Flight, HTTP
EXPOSE 8815 8816 8817
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 CMD ["sabot-agent", "ping"]
ENTRYPOINT ["sabot-agent"]
CMD ["start"]
